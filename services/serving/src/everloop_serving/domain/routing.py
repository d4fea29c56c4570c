"""Which model answers a request."""

import hashlib

__all__ = ["challenger_answers"]

_RANGE = 2**64


def challenger_answers(pipeline: str, request_id: str, share: float) -> bool:
    """Whether the challenger answers: the same request gets the same arm, on every replica.

    A request's rows stay together, since an answer names one model version. `share` is 0…1.
    """
    if share <= 0:
        return False
    digest = hashlib.blake2b(f"{pipeline}\x1f{request_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * _RANGE

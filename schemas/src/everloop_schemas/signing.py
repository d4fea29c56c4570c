"""What a signature covers, so that the signer and the verifier agree without sharing any cryptography."""

from collections.abc import Mapping
from typing import Any

from everloop_schemas import canonical
from everloop_schemas.events import Event

__all__ = ["SIGNATURE_FIELD", "signed_bytes"]

SIGNATURE_FIELD = "signature"


def signed_bytes(event: Event | Mapping[str, Any]) -> bytes:
    """The canonical JSON of every field of `event` but its `signature`.

    A verifier should pass the JSON object as it was received: a field that a newer signer added is then
    covered, where a model of an older version would drop it. A model is taken through its own JSON first, so
    that a default that was never validated (0 for 0.0) signs as what the reader will see.
    """
    document = _as_received(event) if isinstance(event, Event) else event
    return canonical.dumps({name: value for name, value in document.items() if name != SIGNATURE_FIELD})


def _as_received(event: Event) -> dict[str, Any]:
    return type(event).model_validate_json(event.model_dump_json()).model_dump(mode="json")

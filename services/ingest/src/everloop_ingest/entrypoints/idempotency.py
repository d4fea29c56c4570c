"""`Idempotency-Key`, as the IETF's draft (draft-ietf-httpapi-idempotency-key-header) describes it.

The same key with the same request is answered as the first time; with another request it is refused (422),
and while the first is under way too (409). Answers are remembered in this process, as far as they fit.
Whoever comes later, or to another process, is still safe: records are recognised by (source, id).
"""

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from everloop_kernel.http import Problem
from everloop_kernel.http_message import Response

__all__ = ["Answered", "Fingerprint", "Remembered", "key_of"]

_KEY: Final = re.compile(
    r'"([\x20\x21\x23-\x5b\x5d-\x7e]{1,200})"|([\x21\x23-\x2b\x2d-\x3a\x3c-\x7e]{1,200})'
)
"""A structured field's string, or the same without quotes, as most clients send it."""
_FINAL: Final = frozenset({202, 400, 422})
"""Answers that a repetition would get again; others invite one."""
_ENTRY_BYTES: Final = 1000

_Name = tuple[str, str, str]
"""Caller, target and key."""


def key_of(value: str | None) -> str | None:
    """The key of a header's value, or None without one; raises `Problem` 400."""
    if value is None:
        return None
    found = _KEY.fullmatch(value.strip())
    if found is None:
        raise Problem(400, "Bad request", "Idempotency-Key is one string of 1 to 200 printable characters.")
    return found[1] or found[2]


class Fingerprint:
    """What tells a request from another one: a digest of its headers that count, and of its body."""

    def __init__(self, *parts: bytes) -> None:
        self._hash = hashlib.sha256(b"\0".join(parts))

    async def over(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same pieces, which now count."""
        async for piece in pieces:
            self._hash.update(piece)
            yield piece

    def digest(self) -> bytes:
        """Of all that has passed."""
        return self._hash.digest()


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, to which request, and when (seconds of the clock)."""

    digest: bytes
    response: Response
    at: float

    def to(self, digest: bytes) -> Response:
        """The same answer again; raises `Problem` 422 where the request is another one."""
        if digest != self.digest:
            raise Problem(
                422,
                "Idempotency-Key reused",
                "This key came with another request before; give each request a key of its own.",
            )
        response = self.response
        again = (b"idempotency-replayed", b"true")
        return Response(response.body, response.status, response.content_type, [*response.headers, again])

    @property
    def size(self) -> int:
        """Bytes, roughly."""
        return len(self.response.body) + _ENTRY_BYTES


class Remembered:
    """The newest answers by key, for `seconds`, in `limit_bytes`."""

    def __init__(self, limit_bytes: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit_bytes
        self._seconds = seconds
        self._clock = clock
        self._answers: OrderedDict[_Name, Answered] = OrderedDict()
        self._bytes = 0
        self._under_way: set[_Name] = set()

    def begin(self, name: _Name) -> Answered | None:
        """The answer given before; else None, and the key is under way. Raises `Problem` 409."""
        self._forget_old()
        if name in self._under_way:
            raise Problem(
                409,
                "Request under way",
                "A request with this Idempotency-Key is not answered yet; wait for it, or send again later.",
                headers={"Retry-After": "1"},
            )
        found = self._answers.get(name)
        if found is None:
            self._under_way.add(name)
        return found

    def end(self, name: _Name, digest: bytes, response: Response | None) -> None:
        """The request is answered (None: it was not); only a final answer is remembered."""
        self._under_way.discard(name)
        if response is None or response.status not in _FINAL:
            return
        answered = Answered(digest, response, self._clock())
        self._answers[name] = answered
        self._bytes += answered.size
        self._forget_old()

    def _forget_old(self) -> None:
        oldest = self._clock() - self._seconds
        while self._answers:
            name, first = next(iter(self._answers.items()))
            if first.at > oldest and self._bytes <= self._limit:
                return
            del self._answers[name]
            self._bytes -= first.size

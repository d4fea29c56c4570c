"""The other outcome of a total decoder: why some bytes are no event, as a value."""

from dataclasses import dataclass

__all__ = ["Rejected"]


@dataclass(frozen=True, slots=True)
class Rejected:
    """Bytes that a decoder refuses.

    `code` is stable (metrics and dead letters carry it), `reason` says what was found, `mend` what to do.
    """

    code: str
    reason: str
    mend: str

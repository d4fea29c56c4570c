"""What one HTTP connection may ask for."""

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes, counts and times."""

    body_bytes: int = 32 << 20
    """Of a body that is collected; one that is streamed has the handler's own limits."""
    buffered_bytes: int = 128 << 10
    """Of a streamed body, held for the handler before the connection stops reading."""
    target_bytes: int = 4096
    header_bytes: int = 16_384
    header_count: int = 100
    request_seconds: float = 15.0
    """From a request's first byte to its last; a body larger than 1 MiB gets a second more per 128 KiB.

    Time in which the connection does not read, because a handler is slower than its client, does not count.
    """
    idle_seconds: float = 75.0
    write_seconds: float = 30.0
    linger_seconds: float = 5.0
    """How long a client may go on sending what was refused, so that it reads the answer before a reset."""
    connections: int = 10_000
    pipelined: int = 64
    """Answers that may be under way before the connection stops reading."""

    def seconds_for(self, received_bytes: int) -> float:
        """How long a request may take whose body has `received_bytes` so far."""
        return self.request_seconds + max(0, received_bytes - (1 << 20)) / (128 << 10)

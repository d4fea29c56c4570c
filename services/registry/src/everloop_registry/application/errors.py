"""What a person who asks for something can be told."""

from everloop_kernel.errors import EverloopError

from everloop_registry.domain.deployment import Refusal

__all__ = ["NotFound", "Refused"]


class NotFound(EverloopError):  # noqa: N818  (reads as what happened)
    """Nothing of that name or number is registered."""


class Refused(EverloopError):  # noqa: N818  (same)
    """The move makes no sense in the present state: `refusal` says why and what to do."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.reason}: {refusal.mend}")
        self.refusal = refusal

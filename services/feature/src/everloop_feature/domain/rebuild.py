"""State that cannot be read: it is computed again from the log, and stands in its place all at once."""

from collections.abc import Iterable

from everloop_features import Overlay, State
from everloop_features.packing import CLOCK, rebuilding_clock

__all__ = ["Rebuild"]


class Rebuild:
    """One version's state on its way back to where it was; until then the topic stays as it is.

    So serving never sees a window that is half filled, and a process that is killed meanwhile begins again.
    """

    def __init__(self, reason: str, before: Iterable[bytes], target: int) -> None:
        self.reason = reason
        self.target = target
        """Below this offset the log was contained in what cannot be read."""
        self.before = tuple(before)
        """The keys under which it lies."""

    def is_done(self, position: int) -> bool:
        """Whether a state that contains the log up to an offset is as far as the old one was."""
        return position >= self.target

    def mark(self, state: State) -> list[tuple[bytes, bytes | None]]:
        """What keeps a process that starts meanwhile from the old state, and says how far that was."""
        return [(state.prefix + CLOCK, rebuilding_clock(self.target))]

    def changes(self, state: State, overlay: Overlay) -> list[tuple[bytes, bytes | None]]:
        """All of the state with a batch, in place of all that stands on the topic."""
        gone: dict[bytes, bytes | None] = dict.fromkeys(self.before)
        found = gone | dict(state.dump()) | dict(overlay.changes())
        return sorted((key, value) for key, value in found.items() if value is not None or key in gone)

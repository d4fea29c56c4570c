"""Taking a record back: the panes it was in are computed again from the records that are remembered.

What was forgotten cannot be computed again. `settled` is the newest event time among it: panes that begin
later hold remembered records only, and become what they would be had the record never come, bit for bit.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from everloop_features.layout import SAMPLE_LISTS, GroupLayout, RecentLayout, WindowLayout
from everloop_features.nodes import Group, Key
from everloop_features.pending import GroupKey, Kept, Told
from everloop_features.sketches import joined_samples

if TYPE_CHECKING:
    from everloop_features.codegen import Functions

__all__ = ["Contributions", "corrected"]


class _Touched:
    """Notes which groups are written; nothing is kept."""

    def __init__(self, layouts: Sequence[GroupLayout]) -> None:
        self.groups: dict[GroupKey, None] = {}
        self._layouts = layouts

    def writable(self, index: int, key: Key) -> Group:
        self.groups[index, key] = None
        return self._layouts[index].empty()


class _Single:
    """Keeps one group; what is written to others is let go."""

    def __init__(self, layouts: Sequence[GroupLayout], wanted: GroupKey) -> None:
        self._layouts = layouts
        self._wanted = wanted
        self.group: Group = layouts[wanted[0]].empty()

    def writable(self, index: int, key: Key) -> Group:
        if (index, key) == self._wanted:
            return self.group
        return self._layouts[index].empty()


class Contributions:
    """What remembered records add to groups."""

    def __init__(self, functions: "Functions", layouts: Sequence[GroupLayout]) -> None:
        self._functions = functions
        self._layouts = layouts

    def touched(self, entry: Kept | Told) -> Iterable[GroupKey]:
        """The groups in which an entry counts."""
        writer = _Touched(self._layouts)
        self._add(entry, writer)
        return writer.groups

    def group(self, wanted: GroupKey, entries: Iterable[Kept | Told]) -> Group:
        """One group, of these entries alone, each at its place in the log."""
        layout = self._layouts[wanted[0]]
        writer = _Single(self._layouts, wanted)
        counted = [(place, entry) for entry in entries if (place := _place(layout, entry)) is not None]
        for _, entry in sorted(counted, key=lambda each: each[0]):
            self._add(entry, writer)
        return writer.group

    def _add(self, entry: Kept | Told, writer: _Touched | _Single) -> None:
        if isinstance(entry, Kept):
            if entry.values is not None:
                self._functions.observe_kept(entry.values, entry.event_us, writer)
            return
        if entry.told_at is not None:
            self._functions.absorb_told(entry.values, entry.event_us, writer)
        if entry.joined_at is not None:
            self._functions.absorb_joined(entry.values, entry.joined or (), entry.event_us, writer)


def _place(layout: GroupLayout, entry: Kept | Told) -> int | None:
    """Since when an entry counts in a layout; None if it does not."""
    if isinstance(entry, Kept):
        return entry.place if layout.over == "observations" and entry.values is not None else None
    if layout.over == "observations":
        return None
    return entry.joined_at if layout.reads_observation else entry.told_at


def corrected(layout: GroupLayout, group: Group, fresh: Group, settled_us: int) -> Group | None:
    """A group with what lies after `settled_us` as in `fresh`, which holds remembered records only.

    None if nothing is left of it.
    """
    result: Group = []
    for block in layout.blocks:
        mine, other = (lists[block.first : block.first + block.width] for lists in (group, fresh))
        if isinstance(block, WindowLayout):
            result += _window(block, mine, other, settled_us // block.pane_us)
        else:
            result += _recent(block, mine, other, settled_us)
    if not any(result[block.first] for block in layout.blocks):
        return None
    for window in layout.windows:
        if not result[window.first]:
            _leave_a_pane(window, result, group[window.first][-1])
    return result


def _window(window: WindowLayout, mine: Group, fresh: Group, boundary: int) -> Group:
    """Panes up to `boundary` as they are; those after it that both have, as they are in `fresh`."""
    kept = bisect_right(mine[0], boundary)
    known = set(mine[0][kept:])
    again = [index for index, pane in enumerate(fresh[0]) if pane in known]
    lists = 1 + len(window.columns)
    result = [mine[n][:kept] + [fresh[n][index] for index in again] for n in range(lists)]
    panes = [fresh[0][index] for index in again]
    for number, operand in enumerate(window.samples):
        at = lists + SAMPLE_LISTS * number
        levels = result[(window.at("level", operand) or 0) - window.first]
        older, newer = ((block[at], block[at + 1], block[at + 2]) for block in (mine, fresh))
        result += joined_samples(older, newer, mine[0][:kept], panes, levels)
    return result


def _recent(recent: RecentLayout, mine: Group, fresh: Group, settled_us: int) -> Group:
    """The newest records: up to `settled_us` as they are, after it as in `fresh`."""
    kept, again = bisect_right(mine[0], settled_us), bisect_right(fresh[0], settled_us)
    lists = zip(mine, fresh, strict=True)
    return [list(chain(column[:kept], other[again:]))[-recent.records :] for column, other in lists]


def _leave_a_pane(window: WindowLayout, group: Group, pane: int) -> None:
    """A window of a group that lives in another window has a pane: an empty one reads as none."""
    group[window.first] = [pane]
    for position, column in enumerate(window.columns, window.first + 1):
        group[position] = [column.zero]

"""A group's bytes: MessagePack, panes and event times as one number and the steps from it."""

from itertools import accumulate
from operator import sub
from typing import Any

import msgspec

from everloop_features.layout import SAMPLE_LISTS, GroupLayout
from everloop_features.nodes import Group
from everloop_features.packing import GROUP_FORMAT, StateFormatError

__all__ = ["GroupFormat"]

_encoder = msgspec.msgpack.Encoder()


class GroupFormat:
    """How the groups of one layout are written and read.

    The decoder itself holds lists to be lists, and panes and times to be whole numbers.
    """

    def __init__(self, layout: GroupLayout) -> None:
        kinds: list[Any] = [list[Any]] * layout.width
        self._steps = [(window.first, 1) for window in layout.windows]
        self._steps += [(recent.first, 0) for recent in layout.recents]
        for first, _ in self._steps:
            kinds[first] = list[int]
        self._windows = tuple(window.first for window in layout.windows)
        self._equal = [slice(w.first, w.first + 1 + len(w.columns)) for w in layout.windows]
        self._equal += [slice(r.first, r.first + r.width) for r in layout.recents]
        samples = [window.sample_at(operand) for window in layout.windows for operand in window.samples]
        self._equal += [slice(first + 1, first + SAMPLE_LISTS) for first in samples]
        self._decoder = msgspec.msgpack.Decoder(tuple[(int, *kinds)])  # type: ignore[valid-type]  # built, not written

    def pack(self, group: Group) -> bytes:
        """A group as bytes."""
        lists: list[Any] = [GROUP_FORMAT, *group]
        for first, _ in self._steps:
            numbers = group[first]
            lists[first + 1] = [*numbers[:1], *map(sub, numbers[1:], numbers)]
        return _encoder.encode(lists)

    def unpack(self, packed: bytes) -> Group:
        """The inverse of `pack`. Raises StateFormatError."""
        try:
            number, *group = self._decoder.decode(packed)
        except msgspec.DecodeError as error:
            raise StateFormatError(f"a group's state does not fit the pipeline version: {error}") from error
        if number != GROUP_FORMAT:
            raise StateFormatError(f"a group has the unknown format {number}")
        if not all(map(group.__getitem__, self._windows)):
            raise StateFormatError("a window of a group has no pane")
        for equal in self._equal:
            if len(set(map(len, group[equal]))) != 1:
                raise StateFormatError("a group's columns are not equally long")
        for first, least in self._steps:
            steps = group[first]
            if steps and min(steps[1:], default=least) < least:
                raise StateFormatError("a group's panes or times are not ascending")
            group[first] = list(accumulate(steps))
        return group

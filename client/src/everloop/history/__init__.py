"""What the log says of the past: vectors explained, features at any moment, history published."""

from everloop.history.calls import HistoryCalls

__all__ = ["HistoryCalls"]

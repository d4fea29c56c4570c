"""How long each step took."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["Stopwatch"]


@dataclass(slots=True)
class Stopwatch:
    """Seconds by step, by a clock that only the report sees."""

    now: Callable[[], float]
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time the block."""
        begin = self.now()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + self.now() - begin, 3)

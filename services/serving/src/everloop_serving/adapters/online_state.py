"""Feature state in memory, followed from its compacted topic: a table per pipeline version deployed."""

import asyncio
import logging
import time
from collections.abc import Sequence

from everloop_features import Compiled, State, StateFormatError, StateReader
from everloop_features.packing import CLOCK, PENDING, SETTLED, split_key
from everloop_kernel.settings import KafkaSettings
from everloop_kernel.table import Table
from everloop_schemas.topics import TOPICS

__all__ = ["OnlineStates"]

_TOPIC = TOPICS["feature-state-changed-v1"]
_log = logging.getLogger(__name__)

Key = tuple[str, int]


class _FollowedState:
    """One pipeline version's state, and the table that feeds it (none where no feature needs state)."""

    def __init__(self, kafka: KafkaSettings, pipeline: str, version: int, compiled: Compiled) -> None:
        self._state: State = compiled.new_state(version)
        self._damaged = 0
        self.opened = time.monotonic()
        self.task: asyncio.Task[None] | None = None
        self.table: Table | None = None
        if compiled.needs_state:
            topic = _TOPIC.topic_for(pipeline)
            self.table = Table(kafka, [topic], on_change=self._change, name=f"state of {pipeline} v{version}")
            self.task = asyncio.create_task(self.table.run())

    @property
    def reader(self) -> StateReader:
        return self._state

    def age_seconds(self) -> float | None:
        return None if self.table is None else self.table.age_seconds()

    def _change(
        self, topic: str, key: bytes, value: bytes | None, _headers: Sequence[tuple[str, bytes | None]]
    ) -> None:
        if split_key(key)[0] in (CLOCK, PENDING, SETTLED):
            return  # only the stream needs them
        try:
            self._state.load(key, value)
        except (StateFormatError, ValueError) as error:
            self._damaged += 1
            if self._damaged == 1:
                _log.error("state on %s cannot be read and is left out: %s", topic, error)

    @property
    def is_complete(self) -> bool:
        return self.table is None or self.table.caught_up.is_set()

    async def caught_up(self, seconds: float) -> bool:
        """Whether all state that there is has been read, after `seconds` at most."""
        if self.table is None:
            return True
        try:
            await asyncio.wait_for(self.table.wait_caught_up(), seconds)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        if self.table is not None and self.task is not None:
            self.table.stop()
            await self.task


class OnlineStates:
    """The states of all deployed pipeline versions; a component."""

    name = "feature-state"

    def __init__(self, kafka: KafkaSettings, *, wait_seconds: float) -> None:
        self._kafka = kafka
        self._wait_seconds = wait_seconds
        self._states: dict[Key, _FollowedState] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()

    async def open(self, pipeline: str, version: int, compiled: Compiled, *, wait: bool) -> _FollowedState:
        """The state, read to its end where that is possible in time."""
        key = (pipeline, version)
        if key not in self._states:
            self._states[key] = _FollowedState(self._kafka, pipeline, version, compiled)
        state = self._states[key]
        if wait and not await state.caught_up(self._wait_seconds):
            _log.warning(
                "%s v%d answers with the feature state read so far: its topic was not read within %g s",
                pipeline, version, self._wait_seconds,
            )  # fmt: skip
        return state

    def keep_only(self, pipeline: str, versions: set[int]) -> None:
        """Stop following a pipeline's versions that no model needs."""
        for key in [key for key in self._states if key[0] == pipeline and key[1] not in versions]:
            task = asyncio.create_task(self._states.pop(key).close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def ages(self) -> dict[Key, float]:
        """Age of each state in seconds; those never complete are left out."""
        ages = {key: state.age_seconds() for key, state in self._states.items()}
        return {key: age for key, age in ages.items() if age is not None}

    async def run(self) -> None:
        """Follow until `stop`."""
        await self._stopping.wait()
        await asyncio.gather(*self._closing, *(state.close() for state in self._states.values()))

    def stop(self) -> None:
        """Stop following everything."""
        self._stopping.set()

    def not_ready(self) -> str | None:
        """Ready when all state is read, or could not be read in time: then answers go without it."""
        oldest = time.monotonic() - self._wait_seconds
        reading = [
            f"{pipeline} v{version}"
            for (pipeline, version), state in self._states.items()
            if not state.is_complete and state.opened > oldest
        ]
        return f"reading the feature state of {', '.join(reading)}" if reading else None

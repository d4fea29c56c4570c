"""Two loops beside the consumers: one writes segments, one trains."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from everloop_kernel import telemetry
from opentelemetry.trace import Link

from everloop_trainer import metrics
from everloop_trainer.application.carry_out import carry_out
from everloop_trainer.application.ports import Artifacts, Runs, Storage, Trainings
from everloop_trainer.domain.runs import Run

__all__ = ["Bell", "RunLoop", "SegmentLoop"]

_log = logging.getLogger(__name__)
_SEGMENT_PAUSE_SECONDS = 2.0
_WAITING_PAUSE_SECONDS = 0.3
_IDLE_PAUSE_SECONDS = 5.0


class Bell:
    """Wakes a loop, at the latest after a pause."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake whoever waits, or whoever waits next."""
        self._event.set()

    async def wait(self, seconds: float | None) -> None:
        """Until it rings or `seconds` have passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        self._event.clear()


class DueSegments(Storage, Protocol):
    """Storage that can look for work itself."""

    async def write_due(self) -> int: ...
    async def remove_unregistered(self) -> None: ...


class SegmentLoop:
    """Writes segments while rows come in; sleeps while none do."""

    def __init__(self, storage: DueSegments) -> None:
        self.bell = Bell()
        self._storage = storage
        self._stopping = False

    async def run(self) -> None:
        """Until stopped."""
        await self._storage.remove_unregistered()
        while not self._stopping:
            while not self._stopping and await self._storage.write_due():
                pass
            await self.bell.wait(None)
            await asyncio.sleep(0 if self._stopping else _SEGMENT_PAUSE_SECONDS)

    def stop(self) -> None:
        """After the segments being written."""
        self._stopping = True
        self.bell.ring()

    def not_ready(self) -> str | None:
        """Always ready: nobody waits for it."""
        return None


class WaitingRuns(Runs, Protocol):
    """Runs that can say whether it is worth looking again soon."""

    async def waiting(self) -> bool: ...
    async def active(self) -> set[str]: ...
    async def vector_traces(self, run: Run) -> list[str]: ...


class KeptTrainings(Trainings, Protocol):
    """Trainings whose leavings can be cleared away."""

    def forget_others(self, run_ids: set[str]) -> None: ...


class RunLoop:
    """Claims one run after another and carries it out, holding its lease all the while."""

    def __init__(
        self,
        runs: WaitingRuns,
        storage: Storage,
        trainings: KeptTrainings,
        artifacts: Artifacts,
        *,
        renew_seconds: float,
        listen: Callable[[Callable[[], None]], Awaitable[None]],
    ) -> None:
        self.bell = Bell()
        self._pause = Bell()  # rung by nobody: a pause that ends with its task
        self._runs, self._storage, self._trainings, self._artifacts = runs, storage, trainings, artifacts
        self._renew_seconds = renew_seconds
        self._listen = listen
        self._work: asyncio.Task[None] | None = None
        self._stopping = False

    async def run(self) -> None:
        """Until stopped; a run that is not finished then is given back at once."""
        await self._listen(self.bell.ring)
        await self._clear_away()
        while not self._stopping:
            run = await self._runs.claim()
            if run is not None:
                await self._hold(run)
                continue
            await self.bell.wait(
                _WAITING_PAUSE_SECONDS if await self._runs.waiting() else _IDLE_PAUSE_SECONDS
            )

    def stop(self) -> None:
        """Give the run back; what its process has finished by then is kept."""
        self._stopping = True
        self.bell.ring()
        if self._work is not None:
            self._work.cancel()

    def not_ready(self) -> str | None:
        """Always ready: a run may take long."""
        return None

    async def _clear_away(self) -> None:
        """Jobs that a kill left behind, of runs that have ended."""
        self._trainings.forget_others(await self._runs.active())

    async def _hold(self, run: Run) -> None:
        """Work on a run while its lease is renewed; the work ends with the lease."""
        _log.info("run %s of %s: attempt %d", run.run_id, run.pipeline, run.attempts)
        self._work = asyncio.create_task(self._carry_out(run))
        async with self._renewing(run, self._work):
            await asyncio.wait([self._work])
        if self._work.cancelled():
            _log.warning("run %s of %s was given back", run.run_id, run.pipeline)
            await self._runs.release(run, crashed=False)
        else:
            self._work.result()

    async def _carry_out(self, run: Run) -> None:
        parent = telemetry.extract([("traceparent", (run.traceparent or "").encode())])
        about = {"everloop.pipeline": run.pipeline, "everloop.run_id": run.run_id}
        timed = metrics.RUN_SECONDS.labels(run.pipeline).time()
        with telemetry.span("train", about, parent=parent, linked=await self._links(run)), timed:
            await carry_out(run, self._runs, self._storage, self._trainings, self._artifacts)

    async def _links(self, run: Run) -> list[Link]:
        """To the vectors that the run trains on: they are its input as much as its trigger."""
        if not telemetry.enabled():
            return []
        traces = await self._runs.vector_traces(run)
        return telemetry.links([("traceparent", trace.encode())] for trace in traces)

    @contextlib.asynccontextmanager
    async def _renewing(self, run: Run, work: asyncio.Task[None]) -> AsyncIterator[None]:
        keeper = asyncio.create_task(self._keep_lease(run, work))
        try:
            yield
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    async def _keep_lease(self, run: Run, work: asyncio.Task[None]) -> None:
        """Renew until cancelled; a lease that is lost, or cannot be renewed, ends the work."""
        try:
            while await self._runs.renew(run):
                await self._pause.wait(self._renew_seconds)
        finally:
            work.cancel()

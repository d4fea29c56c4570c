"""Makes what is served follow what is deployed, one pipeline at a time, and never stops serving for it."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
from everloop_kernel import telemetry
from everloop_schemas.cloudevents import envelope
from everloop_schemas.events import DeploymentChanged
from everloop_schemas.rejected import Rejected
from opentelemetry.trace import SpanKind
from pydantic import ValidationError

from everloop_serving.application.models import Models
from everloop_serving.application.ports import Deployments, Keys, NotNow, Untrusted
from everloop_serving.application.swap import Swap
from everloop_serving.metrics import REFUSED_MODELS

__all__ = ["Rollout"]

_RETRY_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 60.0
_REVIEW_SECONDS = 5.0
_log = logging.getLogger(__name__)

Headers = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A deployment that was verified: as an event, as bytes, and where its trace goes on."""

    deployment: DeploymentChanged
    signed: bytes
    headers: Headers = field(repr=False)


class Rollout:
    """The component that loads; `offer` is called with each deployment that is read."""

    name = "rollout"

    def __init__(
        self,
        models: Models,
        swap: Swap,
        *,
        keys: Keys,
        deployments: Deployments,
        deployments_read: Callable[[], bool],
    ) -> None:
        self._models = models
        self._swap = swap
        self._keys = keys
        self._deployments = deployments
        self._deployments_read = deployments_read
        self._wanted: dict[str, _Wanted] = {}
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._changed: dict[str, asyncio.Event] = {}
        self._untrusted: dict[bytes, tuple[bytes, Headers]] = {}
        self._restored = False
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Begin with what was served last, then follow; until `stop`."""
        for signed in self._deployments.load():
            self.offer("", b"", signed, [])
        self._restored = True
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _REVIEW_SECONDS)
            self._review()
        for worker in self._workers.values():
            worker.cancel()
        await asyncio.gather(*self._workers.values(), return_exceptions=True)

    def stop(self) -> None:
        """Load nothing more."""
        self._stopping.set()

    def not_ready(self) -> str | None:
        """Ready when what was deployed at the start answers, or has failed for good."""
        if not self._restored or not (self._deployments_read() or self._wanted):
            return "the deployments are not read yet"
        loading = [name for name, why in self._models.pending.items() if why == "it is loading"]
        return f"loading {', '.join(loading)}" if loading else None

    def offer(self, _topic: str, key: bytes, value: bytes | None, headers: Headers) -> None:
        """Take a deployment from its topic or from disk; anything unsound is refused and counted."""
        if value is None:
            _log.warning("a deployment of %r was deleted without a signature: ignored", key)
            return
        try:
            wanted = self._verified(value, headers)
        except Untrusted as error:
            if key not in self._untrusted:
                self._refuse("signature", f"{error}")
            self._untrusted[key] = (value, headers)
            return
        except (ValueError, ValidationError, RecursionError) as error:
            self._refuse("malformed", f"it cannot be read: {error}")
            return
        self._untrusted.pop(key, None)
        self._want(wanted)

    def _verified(self, value: bytes, headers: Headers) -> _Wanted:
        found = envelope(headers, value)
        if isinstance(found, Rejected):
            raise ValueError(found.reason)  # noqa: TRY004  (bad content, not a bad argument)
        document = msgspec.json.decode(found.data)
        if not isinstance(document, dict):
            raise ValueError("it is no JSON object")  # noqa: TRY004  (same)
        self._keys.verify(document)
        return _Wanted(DeploymentChanged.model_validate_json(found.data), found.data, headers)

    def _want(self, wanted: _Wanted) -> None:
        """Only a higher revision counts: neither a replayed nor a late one does."""
        name = wanted.deployment.pipeline
        known = self._wanted.get(name)
        if known is not None and wanted.deployment.revision <= known.deployment.revision:
            return
        self._wanted[name] = wanted
        self._changed.setdefault(name, asyncio.Event()).set()
        if self._models.arms(name) is None:
            self._models.pending[name] = "it is loading"
        worker = self._workers.get(name)
        if worker is None or worker.done():
            self._workers[name] = asyncio.create_task(self._follow(name))

    def _review(self) -> None:
        """Look again at deployments whose key was not trusted: a new key may have arrived meanwhile."""
        for key, (value, headers) in list(self._untrusted.items()):
            self.offer("", key, value, headers)

    async def _follow(self, name: str) -> None:
        """Apply a pipeline's deployments until the newest is done."""
        failures = 0
        while self._changed[name].is_set():
            self._changed[name].clear()
            wanted = self._wanted[name]
            try:
                if await self._apply(wanted, first_try=failures == 0):
                    failures = 0
                    continue
            except NotNow as error:
                _log.warning("%s revision %d: %s; trying again", name, wanted.deployment.revision, error)
            failures += 1
            await self._wait_for_change(name, min(_RETRY_SECONDS * 2**failures, _LONGEST_RETRY_SECONDS))
            self._changed[name].set()

    async def _apply(self, wanted: _Wanted, *, first_try: bool) -> bool:
        """One try; False when some of it must be tried again."""
        deployment = wanted.deployment
        started = time.monotonic()
        attributes: dict[str, str | int] = {
            "everloop.pipeline": deployment.pipeline,
            "everloop.revision": deployment.revision,
        }
        parent = telemetry.extract(wanted.headers)
        with telemetry.span("load deployment", attributes, kind=SpanKind.CONSUMER, parent=parent):
            outcome = await self._swap.apply(deployment, started=started, report_missing=first_try)
        if outcome.swapped:
            await asyncio.to_thread(self._deployments.save, deployment.pipeline, wanted.signed)
        return outcome.complete

    async def _wait_for_change(self, name: str, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed[name].wait(), seconds)

    def _refuse(self, reason: str, why: str) -> None:
        REFUSED_MODELS.labels("", reason).inc()
        _log.error("a deployment is refused: %s", why)

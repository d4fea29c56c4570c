"""The contracts of all pipelines, as the registry defines them."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from everloop_kernel.settings import KafkaSettings
from everloop_kernel.table import Table
from everloop_schemas.cloudevents import Rejected, decode
from everloop_schemas.events import PipelineDefined
from everloop_schemas.pipeline import from_definition
from pydantic import ValidationError

from everloop_ingest.domain.contract import Contract, UnusableContractError

__all__ = ["Pipelines"]

log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 10.0


class Pipelines:
    """A table of compiled contracts over `registry-pipeline-defined-v1`."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self.table = Table(kafka, [PipelineDefined.topic], on_change=self._changed, name="pipelines")
        self._contracts: dict[str, Contract] = {}
        self._listeners: list[Callable[[str], None]] = []
        self._waiting: dict[str, asyncio.Event] = {}

    def get(self, pipeline: str) -> Contract | None:
        """The current contract, None for a pipeline that is not defined."""
        return self._contracts.get(pipeline)

    def on_new(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with the name of each pipeline that appears or goes."""
        self._listeners.append(listener)

    async def wait_for(self, pipeline: str) -> Contract | None:
        """The contract of a pipeline that should exist: its topics come a moment before its definition."""
        await self.table.wait_caught_up()
        if pipeline not in self._contracts:
            arrived = self._waiting.setdefault(pipeline, asyncio.Event())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await arrived.wait()
        if pipeline not in self._contracts:
            log.error("no pipeline %s is defined, but it has an inbound topic", pipeline)
        return self._contracts.get(pipeline)

    def _changed(
        self, _topic: str, key: bytes, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]
    ) -> None:
        name = key.decode("utf-8", "replace")
        known = name in self._contracts
        contract = None if value is None else _read(name, value, headers)
        if value is None:
            self._contracts.pop(name, None)
        elif contract is not None:
            self._contracts[name] = contract
            if self.table.caught_up.is_set():  # at a start the topic tells every version there ever was
                log.info("a new contract of %s is in force", name)
        if known != (name in self._contracts):
            self._announce(name)

    def _announce(self, name: str) -> None:
        if name in self._waiting:
            self._waiting.pop(name).set()
        for listener in self._listeners:
            listener(name)


def _read(name: str, value: bytes, headers: Sequence[tuple[str, bytes | None]]) -> Contract | None:
    """Compile a definition; one that cannot be read leaves the contract as it was, and says so."""
    event = decode(PipelineDefined, value, headers)
    if isinstance(event, Rejected):
        log.error("the definition of %s cannot be read: %s", name, event.reason)
        return None
    try:
        return Contract(from_definition(event.definition))
    except (ValidationError, UnusableContractError):
        log.exception("version %d of %s breaks the rules of a pipeline", event.version, name)
        return None

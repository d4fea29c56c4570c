"""Opening the task of a log partition, once the registry's decisions are known."""

import asyncio
from typing import Protocol

from aiokafka import TopicPartition
from everloop_kernel.errors import EverloopError
from everloop_schemas.topics import find

from everloop_feature.adapters.task import FeatureTask
from everloop_feature.application.pipelines import Pipelines

__all__ = ["Decided", "TaskOpener"]


class Decided(Protocol):
    """A table of decisions that can be waited for."""

    async def wait_caught_up(self) -> None:
        """Return when all decisions so far are known."""
        ...


class TaskOpener:
    """Gives each log partition its task; waits for the decisions, and a while for a pipeline just defined."""

    def __init__(self, pipelines: Pipelines, decisions: Decided, patience_seconds: float) -> None:
        self._pipelines = pipelines
        self._decisions = decisions
        self._patience_seconds = patience_seconds

    async def __call__(self, log: TopicPartition) -> FeatureTask:
        """The task of a log partition. Raises EverloopError for a pipeline that stays unknown."""
        await self._decisions.wait_caught_up()
        found = find(log.topic)
        name = (found and found[1]) or log.topic
        try:
            async with asyncio.timeout(self._patience_seconds):
                features = await self._pipelines.wait_for(name)
        except TimeoutError:
            raise EverloopError(
                f"there are records on {log.topic} but no pipeline {name!r}: apply its file again"
            ) from None
        return FeatureTask(name, log, features)

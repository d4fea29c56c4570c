"""The client's calls that read history: from the log on Kafka, with the services' own evaluator."""

from abc import ABC, abstractmethod
from typing import Any

from everloop_kernel.settings import KafkaSettings
from everloop_schemas.pipeline import Pipeline, from_definition

from everloop.addresses import Addresses
from everloop.history.log import Log, run
from everloop.history.vectors import ExplainedVector, explain_logged, find_vector

__all__ = ["HistoryCalls"]


class HistoryCalls(ABC):
    """Part of `Client`: whatever needs the log needs Kafka within reach, and its credentials."""

    addresses: Addresses

    @abstractmethod
    def _call(self, method: str, service: str, path: str, **options: Any) -> dict[str, Any]:
        """One HTTP request to a service."""

    def explain_vector(
        self, pipeline: str, observation_id: str, *, version: int | None = None, newest: int = 5
    ) -> ExplainedVector:
        """Take an observation's logged vector apart: each value with the records that made it.

        The partition's log is replayed up to the observation and the values are compared bit for bit. Of an
        aggregate's records the `newest` are listed and all are counted.
        """
        log = self._log(pipeline)
        vector = run(find_vector(log, observation_id, version))
        definition = self._definition(pipeline, vector.pipeline_version)
        return run(explain_logged(log, definition, vector, newest=newest))

    def _log(self, pipeline: str) -> Log:
        return Log(KafkaSettings(bootstrap_servers=self.addresses.kafka), pipeline)

    def _definition(self, pipeline: str, version: int | None) -> Pipeline:
        """A version of the pipeline as it was applied; the newest without a number."""
        place = "" if version is None else f"/versions/{version}"
        return from_definition(
            self._call("GET", "registry", f"/v1/pipelines/{pipeline}{place}")["definition"]
        )

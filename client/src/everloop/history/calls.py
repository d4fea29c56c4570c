"""The client's calls that read history: from the log on Kafka, with the services' own evaluator."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from everloop_features import Compiled
from everloop_features import compile as compile_features
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.pipeline import Pipeline, from_definition

from everloop.addresses import Addresses
from everloop.errors import EverloopError
from everloop.history.backfill import Backfill
from everloop.history.frames import Moment, as_frame, frame_of, questions_of
from everloop.history.log import Log, run
from everloop.history.point_in_time import known_values
from everloop.history.records import HistoryFiles, Kind
from everloop.history.retractions import Retraction, Retractions, Standing, find
from everloop.history.vectors import ExplainedVector, explain_logged, find_vector

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["HistoryCalls", "OnlineFeatures"]


@dataclass(frozen=True, slots=True)
class OnlineFeatures:
    """Values by feature; their state may be `state_age_seconds` old (None: they need no state)."""

    values: dict[str, Any]
    pipeline_version: int
    state_age_seconds: float | None


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

    def features(
        self,
        pipeline: str,
        rows: "Sequence[Mapping[str, Any]] | pd.DataFrame",
        *,
        at: Moment | None = None,
        version: int | None = None,
    ) -> "pd.DataFrame":
        """The features of each row as they were known at a moment: `at`, or the row's own column `at`.

        A row has the partition key's fields and whatever other fields of an observation the features need;
        one that is left out is null. Its event time is `at`, unless the row gives it under its own name.
        The answer is the rows with the features beside them, in the same order. Later data changes no answer.
        """
        asked = as_frame(rows)
        definition = self._definition(pipeline, version)
        compiled = compile_features(definition)
        if not isinstance(compiled, Compiled):
            raise EverloopError("\n".join(map(str, compiled)), "This client is older than the pipeline.")
        questions, log = questions_of(definition, asked, at), self._log(pipeline)
        vectors = run(known_values(log, compiled, questions))
        if compiled.needs_state:
            _warn_of_lost(run(log.first_offsets()), {question.partition for question in questions})
        return frame_of(compiled, asked, at, vectors)

    def online(self, pipeline: str, key: Mapping[str, Any]) -> OnlineFeatures:
        """The features of a key as they stand now, from serving's memory: the champion's pipeline version.

        Beside the partition key, `key` may hold other fields of an observation, and its event time (without
        it: now). Nothing is predicted and nothing is logged.
        """
        found = self._call("POST", "serving", f"/v1/pipelines/{pipeline}/online", json=dict(key))
        return OnlineFeatures(found["features"], found["pipeline_version"], found["state_age_seconds"])

    def backfill(self, pipeline: str, files: HistoryFiles, *, source: str, folder: Path) -> Backfill:
        """History to be checked and sent: `check()` asks ingest about every row, `send()` publishes in order.

        `source` is one of the pipeline's replay_sources; `folder` keeps how far a send has come.
        """
        definition = self._definition(pipeline, None)

        def ask(kind: Kind, rows: Sequence[bytes]) -> Sequence[dict[str, Any]]:
            headers = {"Content-Type": "application/x-ndjson", "ce-source": source}
            path, body = f"/v1/pipelines/{pipeline}/{kind}s/check", b"\n".join(rows)
            found = self._call("POST", "ingest", path, content=body, headers=headers)
            results: Sequence[dict[str, Any]] = found["results"]
            return results

        kafka = KafkaSettings(bootstrap_servers=self.addresses.kafka)
        return Backfill(kafka, definition, files, source=source, ask=ask, folder=folder)

    def find_observations(
        self,
        pipeline: str,
        ids: Sequence[str] | None = None,
        *,
        source: str | None = None,
        tell: Callable[[float], None] = lambda _: None,
    ) -> Standing:
        """How observations stand in the log: those with these ids, of this source, or both.

        The whole log is read; `tell` hears which share of it was.
        """
        kafka = KafkaSettings(bootstrap_servers=self.addresses.kafka)
        return run(find(kafka, self._definition(pipeline, None), ids, source, tell))

    def retract(
        self,
        pipeline: str,
        observations: Sequence[Retraction],
        reason: str,
        *,
        tell: Callable[[int], None] = lambda _: None,
    ) -> Retractions:
        """Withdraw observations that `find_observations` found; once however often it is asked.

        The log, and what follows from it, has the retractions a moment after this returns.
        """

        def post(source: str, rows: bytes) -> Mapping[str, Any]:
            headers = {"Content-Type": "application/x-ndjson", "ce-source": quote(source)}
            path = f"/v1/pipelines/{pipeline}/retractions"
            return self._call("POST", "ingest", path, content=rows, headers=headers, also=(400, 422))

        done = Retractions()
        done.send(observations, reason, post, tell)
        return done

    def _log(self, pipeline: str) -> Log:
        return Log(KafkaSettings(bootstrap_servers=self.addresses.kafka), pipeline)

    def _definition(self, pipeline: str, version: int | None) -> Pipeline:
        """A version of the pipeline as it was applied; the newest without a number."""
        place = "" if version is None else f"/versions/{version}"
        return from_definition(
            self._call("GET", "registry", f"/v1/pipelines/{pipeline}{place}")["definition"]
        )


def _warn_of_lost(first_offsets: Mapping[int, int], asked: Collection[int]) -> None:
    """The log is kept for ever unless an operator gave its topic a retention."""
    lost = sorted(partition for partition in asked if first_offsets.get(partition, 0) > 0)
    if lost:
        message = (
            f"Kafka has dropped the beginning of the log in the partitions {lost}: features come from "
            "what is left and may differ from what was known. Set retention.ms=-1 on the log's topic."
        )
        warnings.warn(message, stacklevel=3)

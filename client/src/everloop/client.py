"""A small Python client of the services' HTTP APIs.

```python
with Client() as everloop:
    everloop.apply(Path("pipeline.yaml").read_text())
    everloop.publish("flight-delay", "observations", [{"id": "a1", ...}])
    print(everloop.predict("flight-delay", {"origin": "EWR", ...}, prediction_id="a1").output)
```
"""

import contextlib
import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import httpx

from everloop.addresses import Addresses, ClientSettings, find_addresses
from everloop.errors import EverloopError, UsageError
from everloop.history import HistoryCalls
from everloop.inference import Prediction, request_of, response_of
from everloop.refusals import NO_MODEL, RefusedError, body_of, refused, why_not
from everloop.written import header_text, part, pipeline_name

__all__ = ["Client", "Prediction", "PublishResult"]

_TIMEOUT_SECONDS = 30.0
_ROWS_PER_REQUEST = 2000
_INGEST_SECONDS = 8.0
_ALL_REFUSED = frozenset({httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY})
"""Each record has its own reason. After any other failure, some listed as accepted were not stored."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PublishResult:
    """How many records the broker has, and why the others were refused."""

    accepted: int
    refused: tuple[Json, ...]


class Client(HistoryCalls):
    """Talks to the services; without arguments, to those that the environment and `data_dir` name.

    Every method raises EverloopError, which says what to do, when a service refuses or does not answer.
    """

    def __init__(
        self, addresses: Addresses | None = None, *, token: str | None = None, data_dir: Path | None = None
    ) -> None:
        self.addresses = addresses or find_addresses(data_dir)
        known = ClientSettings().token
        secret = token or (known.get_secret_value() if known else None)
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        self._http = httpx.Client(timeout=_TIMEOUT_SECONDS, headers=headers)

    def apply(self, text: str) -> Json:
        """Define a pipeline, or a new version of it, from the text of its file.

        Returns once ingest takes its records too, unless ingest does not answer at all.
        """
        name = pipeline_name(text)
        found = self._call("PUT", "registry", f"/v1/pipelines/{part(name)}", content=text.encode())
        self._wait_for_ingest(name)
        return found

    def _wait_for_ingest(self, pipeline: str) -> None:
        """Ingest hears of a pipeline from Kafka, a moment after the registry has answered."""
        url = f"{self.addresses.of('ingest')}/v1/pipelines/{part(pipeline)}/observations"
        limit = time.monotonic() + _INGEST_SECONDS
        with contextlib.suppress(httpx.HTTPError):
            while time.monotonic() < limit:
                if self._http.post(url, json=[]).status_code != httpx.codes.NOT_FOUND:
                    return
                time.sleep(0.1)

    def pipelines(self) -> list[Json]:
        """Every pipeline's current version."""
        return list(self._call("GET", "registry", "/v1/pipelines")["pipelines"])

    def pipeline(self, name: str) -> Json:
        """One pipeline's current definition and its versions."""
        return self._call("GET", "registry", f"/v1/pipelines/{part(name)}")

    def catalog(self, pipeline: str, between: tuple[int, int] | None = None) -> Json:
        """Fields, features, who reads them, versions; or what changed between two versions."""
        page = "catalog" if between is None else f"versions/{between[0]}/changes/{between[1]}"
        return self._call("GET", "registry", f"/v1/pipelines/{part(pipeline)}/{page}")

    def models(self, pipeline: str) -> list[Json]:
        """Every model version: stage, trigger, metrics, gates."""
        return list(self._call("GET", "registry", f"/v1/pipelines/{part(pipeline)}/models")["models"])

    def model(self, pipeline: str, version: int) -> Json:
        """One model version's lineage: trigger, dataset, cut, gates, decisions."""
        return self._call("GET", "registry", f"/v1/pipelines/{part(pipeline)}/models/{version}")

    def deployment(self, pipeline: str) -> Json:
        """What should run, and what the serving instances hold."""
        return self._call("GET", "registry", f"/v1/pipelines/{part(pipeline)}/deployment")

    def history(self, pipeline: str) -> Json:
        """The audit trail, newest first."""
        return self._call("GET", "registry", f"/v1/pipelines/{part(pipeline)}/history")

    def approve(self, pipeline: str, version: int, reason: str, *, override: bool = False) -> Json:
        """Approve a version; `override` overrules failed gates, and is kept in the history."""
        body = {"reason": reason, **({"override": True} if override else {})}
        return self._decide(pipeline, f"models/{version}/approve", body)

    def reject(self, pipeline: str, version: int, reason: str) -> Json:
        """Refuse a version; a champion that is refused is replaced by the one before it."""
        return self._decide(pipeline, f"models/{version}/reject", {"reason": reason})

    def roll_back(self, pipeline: str, reason: str) -> Json:
        """Serve the previous champion again."""
        return self._decide(pipeline, "rollback", {"reason": reason})

    def pin(self, pipeline: str, version: int, reason: str) -> Json:
        """Keep a version loaded, reachable by its number."""
        return self._decide(pipeline, f"pins/{version}", {"reason": reason})

    def unpin(self, pipeline: str, version: int) -> Json:
        """Let a pinned version go."""
        return self._call("DELETE", "registry", f"/v1/pipelines/{part(pipeline)}/pins/{version}")

    def train(self, pipeline: str, reason: str, parameters: Mapping[str, Any] | None = None) -> Json:
        """Ask for a run now."""
        body = {"reason": reason, "parameters": dict(parameters or {})}
        return self._call("POST", "trainer", f"/v1/pipelines/{part(pipeline)}/runs", json=body)

    def runs(self, pipeline: str) -> list[Json]:
        """Every run with its trigger and outcome."""
        return list(self._call("GET", "trainer", "/v1/runs", params={"pipeline": pipeline})["items"])

    def run(self, run_id: str) -> Json:
        """One run."""
        return self._call("GET", "trainer", f"/v1/runs/{part(run_id)}")

    def verify(self, pipeline: str, version: int) -> Json:
        """Rebuild a version's dataset and artifact from the log and compare their SHA-256s."""
        path = f"/v1/pipelines/{part(pipeline)}/models/{version}/verify"
        return self._call("POST", "trainer", path, timeout=600)

    def observation(self, pipeline: str, observation_id: str, pipeline_version: int | None = None) -> Json:
        """One observation as the log holds it, its vector and its label."""
        path = f"/v1/pipelines/{part(pipeline)}/observations/{part(observation_id)}"
        params = {} if pipeline_version is None else {"pipeline_version": pipeline_version}
        return self._call("GET", "trainer", path, params=params)

    def predictions(self, prediction_id: str, pipeline: str | None = None) -> list[Json]:
        """Every answer given under this id, with its outcome once the label is known."""
        params = {"pipeline": pipeline} if pipeline else {}
        found = self._call("GET", "monitor", f"/v1/predictions/{part(prediction_id)}", params=params)
        return list(found["predictions"])

    def performance(self, pipeline: str) -> Json:
        """Live figures per model version and day."""
        return self._call("GET", "monitor", f"/v1/pipelines/{part(pipeline)}/performance")

    def quality(self, pipeline: str, *, windows: int = 24) -> Json:
        """The newest windows of a pipeline's data, and whether broken gates hold training back."""
        path = f"/v1/pipelines/{part(pipeline)}/quality"
        return self._call("GET", "ingest", path, params={"windows": windows})

    def accept_quality(self, pipeline: str, reason: str) -> Json:
        """Take the data as it is: the gates broken now stay open until the next profile."""
        return self._call(
            "POST", "ingest", f"/v1/pipelines/{part(pipeline)}/quality/accept", json={"reason": reason}
        )

    def training(self, pipeline: str) -> Json:
        """What the next run waits for."""
        return self._call("GET", "trainer", f"/v1/pipelines/{part(pipeline)}/training")

    def publish(
        self,
        pipeline: str,
        kind: Literal["observations", "labels"],
        records: Sequence[Mapping[str, Any]],
        *,
        source: str | None = None,
    ) -> PublishResult:
        """Send records; returns once the broker has those that are accepted."""
        accepted, refused = 0, []
        for first in range(0, len(records), _ROWS_PER_REQUEST):
            page = records[first : first + _ROWS_PER_REQUEST]
            found = self._publish(pipeline, kind, page, source)
            accepted += int(found["accepted"])
            refused += [
                {"row": first + row, **result}
                for row, result in enumerate(found["results"])
                if result.get("status") == "refused"
            ]
        return PublishResult(accepted, tuple(refused))

    def predict(
        self,
        pipeline: str,
        fields: Mapping[str, Any],
        *,
        prediction_id: str | None = None,
        version: int | None = None,
        explain: bool = False,
    ) -> Prediction:
        """Ask for one prediction; `fields` are the observation's, the event time among them.

        With `explain` the answer says what each feature contributed (exact SHAP values).
        """
        body = request_of(fields, prediction_id, explain=explain)
        place = f"/versions/{version}" if version is not None else ""
        found = self._call("POST", "serving", f"/v2/models/{part(pipeline)}{place}/infer", json=body)
        return response_of(found)

    def answers(self, pipeline: str, version: int | None = None) -> bool:
        """Whether serving has a model of the pipeline, or this version of it, that answers now."""
        place = f"/versions/{version}" if version is not None else ""
        try:
            self._call("GET", "serving", f"/v2/models/{part(pipeline)}{place}/ready")
        except RefusedError as error:
            if error.status in NO_MODEL:
                return False
            raise
        return True

    def why_not_ready(self, service: str) -> str | None:
        """None when a service is ready, else what it says."""
        try:
            answer = self._http.get(f"{self.addresses.of(service)}/health/ready", timeout=3)
        except httpx.HTTPError as error:
            return f"does not answer at {self.addresses.of(service)} ({type(error).__name__})"
        ours = "status" in body_of(answer)
        return None if answer.is_success and ours else why_not(answer)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _decide(self, pipeline: str, what: str, body: Json) -> Json:
        return self._call("POST", "registry", f"/v1/pipelines/{part(pipeline)}/{what}", json=body)

    def _publish(
        self, pipeline: str, kind: str, page: Sequence[Mapping[str, Any]], source: str | None
    ) -> Json:
        lines = "\n".join(_line(row, record) for row, record in enumerate(page))
        origin = {"ce-source": header_text(source)} if source else {}
        headers = {"Content-Type": "application/x-ndjson", **origin}
        path = f"/v1/pipelines/{part(pipeline)}/{kind}"
        return self._call("POST", "ingest", path, content=lines.encode(), headers=headers, also=_ALL_REFUSED)

    def _call(
        self, method: str, service: str, path: str, *, also: Collection[int] = (), **options: Any
    ) -> Json:
        """The answer's JSON; `also`: statuses of refusals that are results, where the body lists some."""
        url = self.addresses.of(service) + path
        try:
            answer = self._http.request(method, url, **options)
        except ValueError as error:
            mend = "JSON has no NaN and no infinity: a missing number is null."
            raise UsageError(f"The request cannot be written: {error}.", mend) from error
        except httpx.HTTPError as error:
            raise EverloopError(
                f"{service} does not answer at {self.addresses.of(service)} ({type(error).__name__}).",
                "`everloop up` starts it; one that runs elsewhere is named by "
                f"EVERLOOP_{service.upper()}_URL.",
            ) from error
        body = body_of(answer)
        if answer.is_success or (answer.status_code in also and "results" in body):
            return body
        raise refused(service, answer.status_code, body)


def _line(row: int, record: Mapping[str, Any]) -> str:
    try:
        return json.dumps(record, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"row {row} is no JSON: {error}", "A missing number is null, not NaN.") from error

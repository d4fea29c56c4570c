"""The judge of the data gates: as a stream processor, and over HTTP."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import msgspec
from aiokafka import ConsumerRecord, TopicPartition
from everloop_kernel.http import Problem
from everloop_kernel.http_message import Response, json_response
from everloop_kernel.http_routes import Call, Route
from everloop_kernel.settings import KafkaSettings, PlatformSettings
from everloop_kernel.stream import RestoreFrom, Step, StreamProcessor
from everloop_schemas.events import (
    Acceptance,
    DataProfiled,
    QualityMeasured,
    QualityNoted,
    QualityStanding,
)
from everloop_schemas.ids import derived_id

from everloop_ingest.application import names
from everloop_ingest.application.judging import Judge, Judged
from everloop_ingest.application.submitting import InboundRecord, Overloaded, Publish, Unavailable
from everloop_ingest.application.tallying import noted
from everloop_ingest.domain.book import blocked_reason
from everloop_ingest.domain.contract import Contract
from everloop_ingest.domain.rules import Rules
from everloop_ingest.metrics import BLOCKED, BROKEN_GATES, KNOWN_AT

__all__ = ["QualityPages", "judge", "quality_routes"]

_LARGEST_BODY = 4096
_LONGEST_REASON = 500
_MOST_WINDOWS = 1000


class JudgeTask:
    """The judge, and its metrics."""

    generation = Judge.generation

    def __init__(self, found: Judge) -> None:
        self._judge = found

    def restore_from(self) -> Sequence[RestoreFrom]:
        """See `Judge`."""
        return self._judge.restore_from()

    def restore(self, records: Sequence[ConsumerRecord]) -> None:
        """See `Judge`."""
        self._judge.restore(records)

    def begin(self, beginning: int, committed: int | None) -> int:
        """See `Judge`."""
        return self._judge.begin(beginning, committed)

    def derive(self, records: Sequence[ConsumerRecord]) -> Step[Judged]:
        """See `Judge`."""
        return self._judge.derive(records)

    def apply(self, state: Judged) -> None:
        """The transaction is committed: its verdicts may be counted."""
        self._judge.apply(state)
        for pipeline, book in state.books.items():
            if book.standing is not None:
                BLOCKED.labels(pipeline).set(bool(book.standing.held))
                KNOWN_AT.labels(pipeline).set(book.standing.known_at.timestamp())
        for event in state.events:
            for gate in event.gates if event.verdict == "broken" else ():
                BROKEN_GATES.labels(event.pipeline, gate.source, gate.on_broken).inc()


def judge(
    kafka: KafkaSettings,
    platform: PlatformSettings,
    contract: Callable[[str], Contract | None],
    profile: Callable[[str], DataProfiled | None],
    wait: Callable[[], Any],
) -> StreamProcessor:
    """The stream processor over the notes; `wait` returns once contracts and profiles are known."""
    known: dict[str, Rules] = {}

    def rules(pipeline: str) -> Rules | None:
        found, learned = contract(pipeline), profile(pipeline)
        if found is None:
            return None
        rules = known.get(pipeline)
        if rules is None or rules.pipeline is not found.definition or rules.newest is not learned:
            rules = known[pipeline] = Rules(found.definition, learned)
        return rules

    async def open_task(partition: TopicPartition) -> JudgeTask:
        del partition  # there is one
        await wait()
        return JudgeTask(Judge(rules))

    return StreamProcessor(
        kafka=kafka,
        platform=platform,
        group=names.QUALITY_GROUP,
        pattern=f"^{names.NOTED_TOPIC}$",
        open_task=open_task,
    )


@dataclass(frozen=True, slots=True)
class QualityPages:
    """What the routes need."""

    get: Callable[[str], Contract | None]
    profile: Callable[[str], DataProfiled | None]
    measured: Callable[[str], Sequence[QualityMeasured]]
    publish: Publish


def quality_routes(pages: QualityPages) -> list[Route]:
    """`GET …/quality` and `POST …/quality/accept`."""

    def show(call: Call) -> Response:
        call.require("reader")
        return json_response(_view(pages, _known(pages, call), _limit(call)))

    async def accept(call: Call) -> Response:
        return await _accept(pages, call)

    base = "/v1/pipelines/{pipeline}/quality"
    return [Route(base, {b"GET": show}), Route(f"{base}/accept", {b"POST": accept})]


def _known(pages: QualityPages, call: Call) -> str:
    pipeline = call.parameters["pipeline"]
    if pages.get(pipeline) is None:
        raise Problem(404, "Unknown pipeline", f"There is no pipeline {pipeline!r}; apply its file first.")
    return pipeline


def _limit(call: Call) -> int:
    query = parse_qs(call.request.target.partition(b"?")[2].decode("latin-1"), keep_blank_values=True)
    text = query.get("windows", ["24"])[-1]
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_WINDOWS:
        raise Problem(422, "Not a limit", f"windows is a whole number from 1 to {_MOST_WINDOWS}.")
    return int(text)


def _view(pages: QualityPages, pipeline: str, limit: int) -> dict[str, Any]:
    found = pages.measured(pipeline)
    standing, profile = _standing(found), pages.profile(pipeline)
    windows = [each.window.model_dump(mode="json") for each in found if each.window is not None]
    return {
        "pipeline": pipeline,
        "blocked": bool(standing and standing.held),
        "blocked_reason": blocked_reason(standing),
        "standing": None if standing is None else standing.model_dump(mode="json"),
        "profile": None if profile is None else profile.model_dump(mode="json"),
        "windows": windows[-limit:],
    }


def _standing(found: Sequence[QualityMeasured]) -> QualityStanding | None:
    return next((each.standing for each in found if each.standing is not None), None)


async def _accept(pages: QualityPages, call: Call) -> Response:
    """A person takes the data as it is; the decision is judged in its turn, like every note."""
    caller, pipeline = call.require("operator"), _known(pages, call)
    reason = _reason(call.request.body)
    standing = _standing(pages.measured(pipeline))
    if standing is None or not standing.held:
        raise Problem(409, "Nothing to accept", f"No data gate holds {pipeline} back.")
    acceptance = Acceptance(by=caller.name, reason=reason, at=datetime.now(UTC))
    identifier = derived_id(f"{standing.revision}-{caller.name}", "acceptance")
    output = noted(QualityNoted(pipeline=pipeline, accepted=acceptance), identifier)
    record = InboundRecord(output.partition, output.key or b"", output.value or b"", list(output.headers))
    try:
        await pages.publish(output.topic, [record])
    except (Unavailable, Overloaded) as error:
        raise Problem(503, "Not available", f"{error}. Try again.", headers={"Retry-After": "1"}) from error
    accepted = [gate.gate for gate in standing.held]
    return json_response({"pipeline": pipeline, "accepted": accepted, "by": caller.name}, 202)


def _reason(body: bytes) -> str:
    try:
        given = msgspec.json.decode(body or b"{}") if len(body) <= _LARGEST_BODY else None
    except msgspec.MsgspecError as error:
        raise Problem(400, "Not JSON", f"Send an object with a reason: {error}") from error
    reason = given.get("reason", "") if isinstance(given, dict) else None
    if not isinstance(reason, str) or not 0 < len(reason) <= _LONGEST_REASON:
        raise Problem(
            422, "Not a reason", f"Send an object with a reason: 1 to {_LONGEST_REASON} characters."
        )
    return reason

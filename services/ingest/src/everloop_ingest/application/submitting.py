"""The HTTP edge's use case: check rows, publish the good ones, say what became of each."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from everloop_schemas.partition import partition_of

from everloop_ingest.application import names
from everloop_ingest.application.reading import read_data
from everloop_ingest.domain.contract import Checked, Contract, Kind, Refused

__all__ = ["InboundRecord", "Publish", "Sender", "Unavailable", "submit"]

_ROWS_AT_A_TIME = 500


class Unavailable(Exception):  # noqa: N818  (it states what is the case)
    """The broker has not acknowledged the records in time; they may or may not have been stored."""


class InboundRecord(NamedTuple):
    """A record for the inbound topic."""

    partition: int
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


Publish = Callable[[str, Sequence[InboundRecord]], Awaitable[None]]
"""Publish on a topic and return after the broker's acknowledgement; raises Unavailable."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends the rows."""

    source: str
    """The CloudEvents source."""
    may_replay: bool
    """Whether its rows may say when they were known."""
    headers: Sequence[tuple[str, bytes]] = ()
    """Headers for every record, such as the trace context."""


async def submit(
    contract: Contract,
    kind: Kind,
    rows: Sequence[bytes],
    sender: Sender,
    *,
    clock: Callable[[], datetime],
    publish: Publish,
) -> list[dict[str, Any]]:
    """Publish what meets the contract; each row's result, in the order of the rows.

    A duplicate is accepted here and dropped by the worker, which alone sees every copy of an id.
    """
    results: list[dict[str, Any]] = []
    accepted: list[InboundRecord] = []
    for first in range(0, len(rows), _ROWS_AT_A_TIME):
        now = clock()
        for row in rows[first : first + _ROWS_AT_A_TIME]:
            outcome = read_data(
                contract, kind, row, source=sender.source, now=now, may_replay=sender.may_replay
            )
            results.append(_result(outcome))
            if isinstance(outcome, Checked):
                accepted.append(_inbound(contract, outcome, row, sender))
        await asyncio.sleep(0)  # a large body must not hold up the worker or other requests
    if accepted:
        await publish(f"{names.INBOUND}.{contract.pipeline}", accepted)
    return results


def _result(outcome: Checked | Refused) -> dict[str, Any]:
    if isinstance(outcome, Checked):
        return {"status": "accepted", "id": outcome.id}
    return {
        "status": "refused",
        "id": outcome.id,
        "reason": outcome.violations[0].rule,
        "violations": [violation.model_dump() for violation in outcome.violations],
    }


def _inbound(contract: Contract, checked: Checked, row: bytes, sender: Sender) -> InboundRecord:
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", f"{checked.kind}-{checked.id}".encode()),
        ("ce_source", sender.source.encode()),
        ("ce_type", f"io.everloop.{checked.kind}".encode()),
        ("content-type", b"application/json"),
        *sender.headers,
    ]
    return InboundRecord(partition_of(checked.key, contract.partitions), checked.key, row, headers)

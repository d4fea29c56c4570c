"""Whatever is published inbound, ingest goes on, and each record stands in exactly one place."""

import hostile_ledger
import pytest
from hostile import Publisher, outcomes
from hostile_records import PIPELINE, hostile

pytestmark = pytest.mark.integration

COUNT = 20_000


@pytest.mark.timeout(170)
async def test_hostile_records_stop_nobody_and_none_is_lost(ingest, unique) -> None:
    """Whoever may write to an inbound topic could stop ingest for everybody, or make records vanish."""
    name = unique("hostile")
    await ingest.define(name, PIPELINE)
    process = ingest.process
    async with Publisher(ingest.kafka, f"producer-record-published-v1.{name}") as publisher:
        await publisher.publish(list(hostile(seed=7, count=COUNT)))
        await publisher.publish([hostile_ledger.GOOD])
    await hostile_ledger.settled(ingest.kafka, name, lambda: process.poll() is None, ["everloop-ingest"])
    ledger = await hostile_ledger.read(ingest.kafka, name, publisher.sent)
    assert ledger.mistakes(outcomes(ingest.port)) == []
    assert (len(ledger.sent), ledger.good, process.poll()) == (COUNT + 1, 1, None)


async def test_a_flood_of_oversized_records_does_not_stop_ingest(ingest, unique) -> None:
    """They cannot be quarantined; as dead letters they were counted until the whole service ended."""
    name = unique("flood")
    await ingest.define(name, PIPELINE)
    flood = [hostile_ledger.GOOD._replace(value=b"x" * 1_400_000)] * 12
    ingest.end()
    ingest.extra = {"EVERLOOP_DEAD_LETTER_LIMIT_COUNT": "5"}
    ingest.start()
    async with Publisher(ingest.kafka, f"producer-record-published-v1.{name}") as publisher:
        await publisher.publish([*flood, hostile_ledger.GOOD])
    process = ingest.process
    await hostile_ledger.settled(ingest.kafka, name, lambda: process.poll() is None, ["everloop-ingest"])
    ledger = await hostile_ledger.read(ingest.kafka, name, publisher.sent)
    assert (len([place for place in ledger.sent if place in ledger.dead]), ledger.good) == (12, 1)

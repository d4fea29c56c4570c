"""Processes are killed and stopped; every record's effect and every event is there once."""

import asyncio
import signal
from collections import Counter

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(180)]

RECORDS = 10_000
VALUES = [b"%d" % number for number in range(RECORDS)]


async def test_killed_recorders_apply_each_record_once(bench, until):
    """A crash in the middle of whatever must neither lose a label nor count it twice, nor repeat an event."""
    await bench.send(VALUES)
    members = [await bench.spawn("--record", "--relay", "--slow") for _ in range(2)]
    for kill in range(5):
        await until(lambda kill=kill: _progress(bench, 1500 * (kill + 1)), 60, members[0].output)
        await members[kill % 2].kill()
        members[kill % 2] = await bench.spawn("--record", "--relay", "--slow")
    await until(lambda: _progress(bench, RECORDS), 90, members[0].output)
    await until(lambda: _published_all(bench), 60, members[1].output)
    await until(lambda: _started(members), 30, members[0].output)
    for member in members:
        member.signal(signal.SIGTERM)
    assert [await member.ended() for member in members] == [0, 0], members[0].output + members[1].output
    assert Counter(await bench.applied()) == Counter(VALUES)
    assert Counter(record.value for record in await bench.read(bench.target)) == Counter(VALUES)


async def test_a_stopped_recorder_cannot_write_after_its_successor(bench, until):
    """A process that hangs for longer than its session must not repeat the work of the one that took over."""
    await bench.send(VALUES[:4000])
    zombie = await bench.spawn("--record", "--slow")
    await until(lambda: _progress(bench, 500), 30, zombie.output)
    zombie.signal(signal.SIGSTOP)
    successor = await bench.spawn("--record", "--relay")
    await until(lambda: _progress(bench, 4000), 60, successor.output)
    zombie.signal(signal.SIGCONT)
    await asyncio.sleep(3)
    for member in (zombie, successor):
        member.signal(signal.SIGTERM)
    assert await zombie.ended() in (0, 1)  # it leaves, or it finds itself fenced and exits
    assert await successor.ended() == 0, successor.output
    assert "Traceback" not in "".join(line for line in zombie.output.splitlines() if not line.startswith("{"))
    assert Counter(await bench.applied()) == Counter(VALUES[:4000])


async def test_a_relay_killed_after_publishing_publishes_once(bench, until):
    """A crash between Kafka's commit and the deletion in Postgres must not announce a model twice."""
    await bench.send(VALUES[:300])
    recorder = await bench.spawn("--record")
    await until(lambda: _progress(bench, 300), 30, recorder.output)
    for _ in range(2):
        relay = await bench.spawn("--relay", "--die-before-delete")
        assert await relay.ended() == -signal.SIGKILL, relay.output
    relay = await bench.spawn("--relay")
    await until(lambda: _outbox_empty(bench), 30, relay.output)
    await relay.kill()
    await recorder.kill()
    assert Counter(record.value for record in await bench.read(bench.target)) == Counter(VALUES[:300])


async def test_one_relay_leads_and_another_takes_over(bench, until):
    """With two instances an event must be published once, also when one of them dies."""
    relays = [await bench.spawn("--relay") for _ in range(2)]
    await until(lambda: _one_leads(relays), 30)
    leader, standby = sorted(relays, key=lambda relay: "publishing the outbox" not in relay.output)
    recorder = await bench.spawn("--record")
    await bench.send(VALUES[:100])
    await until(lambda: _progress(bench, 100), 30, recorder.output)
    await until(lambda: _outbox_empty(bench), 30, leader.output)
    assert "publishing the outbox" not in standby.output
    await leader.kill()
    await bench.send(VALUES[100:200])
    await until(lambda: _progress(bench, 200), 30, recorder.output)
    await until(lambda: _outbox_empty(bench), 30, standby.output)
    await standby.kill()
    await recorder.kill()
    assert Counter(record.value for record in await bench.read(bench.target)) == Counter(VALUES[:200])


async def test_a_stopped_relay_loses_its_leadership(bench, until):
    """A hanging leader must not keep events back, nor publish late what another published."""
    hanging = await bench.spawn("--relay")
    await until(lambda: _one_leads([hanging]), 30)
    hanging.signal(signal.SIGSTOP)
    recorder = await bench.spawn("--record", "--relay")
    await bench.send(VALUES[:100])
    await until(lambda: _progress(bench, 100), 30, recorder.output)
    await until(lambda: _outbox_empty(bench), 40, recorder.output)
    hanging.signal(signal.SIGCONT)
    await bench.send(VALUES[100:200])
    await until(lambda: _progress(bench, 200), 30, recorder.output)
    await until(lambda: _outbox_empty(bench), 30, recorder.output)
    await hanging.kill()
    await recorder.kill()
    assert Counter(record.value for record in await bench.read(bench.target)) == Counter(VALUES[:200])


async def _progress(bench, count: int) -> bool:
    return await bench.pool.fetchval("SELECT count(*) FROM applied") >= count


async def _outbox_empty(bench) -> bool:
    return await bench.pool.fetchval("SELECT count(*) FROM outbox") == 0


async def _published_all(bench) -> bool:
    return await _outbox_empty(bench) and len(await bench.read(bench.target)) >= RECORDS


async def _one_leads(relays) -> bool:
    return sum("publishing the outbox" in relay.output for relay in relays) == 1


async def _started(members) -> bool:
    """From here on a SIGTERM is drained; before, it just ends the process."""
    return all("started" in member.output for member in members)

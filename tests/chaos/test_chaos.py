"""Kill and stop every service while records flow: nothing lost, nothing doubled, every poison set aside."""

import asyncio
import contextlib
import hashlib
import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord
from everloop.stack import Ports, Stack, supervisor
from everloop_kernel.exactly_once import Ledger, check, identities
from everloop_kernel.settings import KafkaSettings
from everloop_schemas import events
from everloop_schemas.partition import key_bytes, partition_of
from everloop_schemas.topics import dead_letter_topic

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

PIPELINE = "chaos"
PARTITIONS = 3
SITES = [f"site-{number}" for number in range(12)]
RECORDS = 10_000
DUPLICATE_SHARE = 0.05
POISON = 100
LOG_POISON = 20
KILLS = 50
STOPS = 5
SESSION_MS = 6_000
STOP_SECONDS = SESSION_MS / 1000 + 3
VICTIMS = ("ingest", "feature", "trainer", "registry", "monitor")
START = datetime(2024, 3, 1, tzinfo=UTC)
SEED = 7
READERS_OF_THE_LOG = ("everloop-feature", "everloop-trainer-data", "everloop-monitor-data")

FILE = f"""
pipeline: {PIPELINE}
partition_by: [site]
partitions: {PARTITIONS}
observation:
  event_time: at
  replay_sources: [chaos]
  notify_every: 200
  fields:
    site: {{type: category}}
    level: {{type: number, min: -10, max: 10}}
label:
  type: binary
  fields: {{outcome: {{type: number}}}}
  value: {{bad: outcome > 0.5}}
  expected_after: 6h
features:
  level: level
  recent: count(window='1h', by=[site])
  bad_lately: mean(bad, window='6h', by=[site], over=labels)
training:
  when: {{new_labelled_rows: 1500, drift: false, cooldown: 1h}}
  model: {{family: lightgbm, trees: 10, leaves: 7, min_data_in_leaf: 20}}
gates:
  - {{metric: log_loss, at_most: 5}}
"""

Message = tuple[bytes, bytes, int]
"""CloudEvents type, value and inbound partition."""


def records(rng: random.Random) -> list[tuple[str, Message]]:
    """Observations and labels in the order of knowing, each with its identity."""
    found = []
    for number in range(RECORDS // 2):
        site = rng.choice(SITES)
        at = START + timedelta(minutes=number)
        partition = partition_of(key_bytes([site]), PARTITIONS)
        level = rng.gauss(0, 1)
        times = {"known_at": _text(at)}
        seen = {"id": f"r{number}", "at": _text(at), "site": site, "level": round(level, 3), **times}
        late = at + timedelta(minutes=30)
        outcome = {
            "id": f"r{number}",
            "event_time": _text(late),
            "known_at": _text(late),
            "site": site,
            "outcome": float(level + rng.gauss(0, 1) > 0),
        }
        found.append((at, f"observation/r{number}", (b"io.everloop.observation", _json(seen), partition)))
        found.append((late, f"label/r{number}", (b"io.everloop.label", _json(outcome), partition)))
    return [(identity, message) for _, identity, message in sorted(found, key=lambda item: item[0])]


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _json(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value)


class Havoc:
    """Kills and stops services in turn until it has done its share."""

    def __init__(self, stack: Stack, rng: random.Random) -> None:
        self._stack = stack
        self._turns = itertools.cycle(VICTIMS)
        self._rng = rng
        self.kills: Counter[str] = Counter()
        self.stops: Counter[str] = Counter()

    async def run(self) -> None:
        """One kill after another, a stop beyond the session in between."""
        for number in range(KILLS):
            if number % (KILLS // STOPS) == 0:
                await self._stop(VICTIMS[number // (KILLS // STOPS)])
            await self._kill(next(self._turns))
            await asyncio.sleep(self._rng.uniform(0.6, 1.6))

    async def _pid(self, name: str) -> int:
        while name not in self._stack.services:  # noqa: ASYNC110 - the supervisor is a thread
            await asyncio.sleep(0.1)
        return self._stack.services[name].pid

    async def _kill(self, name: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(await self._pid(name), signal.SIGKILL)
            self.kills[name] += 1

    async def _stop(self, name: str) -> None:
        """Longer than the session: the others go on, and the stopped one wakes up as a zombie."""
        pid = await self._pid(name)
        os.kill(pid, signal.SIGSTOP)
        self.stops[name] += 1
        await asyncio.sleep(STOP_SECONDS)
        os.kill(pid, signal.SIGCONT)


async def publish(bootstrap_servers: str, ledger: Ledger, over: Callable[[], bool]) -> list[str]:
    """Send everything, some twice, poison in between, slowly while the havoc lasts; returns the poison."""
    rng = random.Random(SEED)
    wanted = records(rng)
    poison = [f"poison-{number}" for number in range(POISON)]
    spoiled = set(rng.sample(range(len(wanted)), POISON))
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, enable_idempotence=True, acks="all")
    await producer.start()
    names = iter(poison)
    try:
        for number, (identity, message) in enumerate(wanted):
            ledger.append([identity])
            await send(producer, message)
            if rng.random() < DUPLICATE_SHARE:
                await send(producer, message)
            if number in spoiled:
                bad = (b"io.everloop.observation", b'{"broken": "' + next(names).encode() + b'", \xff', 0)
                await send(producer, bad)
            # slower than it could be: every service must be hit while records are in flight
            await asyncio.sleep(0.0 if over() else 0.009)
        for number in range(LOG_POISON):
            topic = f"{events.RecordAccepted.topic}.{PIPELINE}"
            await producer.send_and_wait(topic, b"\x00log-poison", b"k", number % PARTITIONS)
    finally:
        await producer.stop()
    return poison


async def send(producer: AIOKafkaProducer, message: Message) -> None:
    """Wait for the broker, as a producer does that must not lose anything."""
    kind, value, partition = message
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", hashlib.sha256(value).hexdigest().encode()),
        ("ce_source", b"chaos"),
        ("ce_type", kind),
    ]
    await producer.send_and_wait(
        f"producer-record-published-v1.{PIPELINE}", value, b"k", partition, headers=headers
    )


async def until(met: Callable[[], Any], seconds: float, what: str) -> None:
    limit = time.monotonic() + seconds
    while not await met():
        assert time.monotonic() < limit, f"{what} within {seconds:.0f} s"
        await asyncio.sleep(0.5)


def _log_identity(record: ConsumerRecord) -> str:
    if record.value == b"\x00log-poison":
        return ""
    entry = msgspec.json.decode(record.value)
    return f"{entry['kind']}/{entry['id']}"


def _field(name: str) -> Callable[[ConsumerRecord], str]:
    return lambda record: str(msgspec.json.decode(record.value)[name])


def _poison_name(record: ConsumerRecord) -> str:
    event = msgspec.json.decode(record.value, type=_Quarantined)
    return event.data_base64.decode("utf-8", "replace").split('"')[3]


class _Quarantined(msgspec.Struct):
    data_base64: bytes


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # the supervisor is the harness here: a service that is killed ten times must come back ten times
    monkeypatch.setattr(supervisor, "_LONGEST_PAUSE_SECONDS", 0.5)
    env = {"EVERLOOP_KAFKA_SESSION_TIMEOUT_MS": str(SESSION_MS)}
    with Stack(tmp_path / "data", ports=Ports.free(), env=env) as running:
        yield running


async def test_nothing_is_lost_or_doubled(stack: Stack, tmp_path: Path) -> None:
    """The promise of the whole platform: each acknowledged record has its effects once, whatever dies."""
    await asyncio.to_thread(define, stack)
    servers = stack.addresses.kafka
    ledger = Ledger(tmp_path / "ledger")
    havoc = Havoc(stack, random.Random(SEED))
    wrecking = asyncio.create_task(havoc.run())
    poison = await publish(servers, ledger, wrecking.done)
    await wrecking
    assert sum(havoc.kills.values()) >= KILLS * 0.8
    assert sum(havoc.stops.values()) == STOPS
    await settle(stack)
    await hold_the_topics_against(ledger, poison, servers)
    await hold_the_databases_against(stack.addresses.postgres)
    await hold_the_decisions_together(servers)


def define(stack: Stack) -> None:
    httpx.put(f"{stack.addresses.registry}/v1/pipelines/{PIPELINE}", content=FILE).raise_for_status()


async def settle(stack: Stack) -> None:
    """Wait until the services have handled everything and no run is under way."""

    async def caught_up() -> bool:
        return len(stack.services) == len(VICTIMS) + 3 and await stack.lag() == 0

    async def no_run() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            url = f"{stack.addresses.trainer}/v1/runs?pipeline={PIPELINE}"
            runs = (await asyncio.to_thread(httpx.get, url)).json()
            return bool(runs) and all(run["state"] in {"trained", "failed"} for run in runs)
        return False

    await until(caught_up, 180, "the services must catch up")
    await until(no_run, 120, "the runs must end")
    await until(caught_up, 60, "the services must catch up")
    await asyncio.sleep(2)


async def hold_the_topics_against(ledger: Ledger, poison: list[str], servers: str) -> None:
    kafka = KafkaSettings(bootstrap_servers=servers)
    sent = ledger.read()

    async def found(topic: str, identify: Callable[[ConsumerRecord], str]) -> list[str]:
        return [name for name in await identities(kafka, topic, identify) if name]

    log = await found(f"{events.RecordAccepted.topic}.{PIPELINE}", _log_identity)
    set_aside = await found(f"{events.RecordQuarantined.topic}.{PIPELINE}", _poison_name)
    accepted = check(sent, log, poison=poison, dead=set_aside)
    assert accepted.ok, str(accepted)
    observed = [name.removeprefix("observation/") for name in sent if name.startswith("observation/")]
    vectors = check(observed, await found(f"{events.VectorComputed.topic}.{PIPELINE}", _field("id")))
    assert vectors.ok, str(vectors)
    for group in READERS_OF_THE_LOG:
        dead = await identities(kafka, dead_letter_topic(group), lambda record: str(record.value))
        assert len(dead) == LOG_POISON, f"{group} has {len(dead)} dead letters"


async def hold_the_databases_against(dsn: str) -> None:
    """What the recorders counted is what the log holds."""
    connection = await asyncpg.connect(dsn)
    try:
        counts = await connection.fetchrow(
            "SELECT (SELECT sum(observations) FROM trainer.log_progress) AS observations,"
            " (SELECT sum(labels) FROM trainer.log_progress) AS labels,"
            " (SELECT sum(vectors) FROM trainer.vector_progress) AS vectors,"
            " (SELECT count(*) FROM monitor.labels) AS outcomes,"
            " (SELECT sum(rows) FROM monitor.sketches) AS sketched"
        )
    finally:
        await connection.close()
    assert {name: int(value) for name, value in counts.items()} == dict.fromkeys(counts.keys(), RECORDS // 2)


async def hold_the_decisions_together(servers: str) -> None:
    """One model a run, one decision a model, each published once."""
    kafka = KafkaSettings(bootstrap_servers=servers)
    runs = await identities(kafka, events.RunStarted.topic, _field("run_id"))
    trained = await identities(kafka, events.ModelTrained.topic, _field("run_id"))
    failed = await identities(kafka, events.RunFailed.topic, _field("run_id"))
    approved = await identities(kafka, events.ModelApproved.topic, _field("run_id"))
    rejected = await identities(kafka, events.ModelRejected.topic, _field("run_id"))
    assert runs
    assert Counter(runs) == Counter(trained + failed)
    assert Counter(trained) == Counter(approved + rejected)
    assert set(Counter(runs).values()) == {1}

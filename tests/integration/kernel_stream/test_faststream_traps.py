"""The checker must see what FastStream's defaults lose (traps 1, 2, 4, 5, 6), and nothing with the fixes.

The recorder's own fixes are tested in tests/integration/kernel_recorder.
"""

import asyncio
import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from everloop_kernel.admin import ensure_topics
from everloop_kernel.exactly_once import Verdict, check, identities
from everloop_kernel.kafka import plain_producer
from faststream import AckPolicy

pytestmark = pytest.mark.integration

SCRIPT = Path(__file__).with_name("faststream_consumer.py")
VALUES = [f"v{number}" for number in range(20)]


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("faststream_consumer", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fs = _load()


@pytest.fixture
async def topic(settings, unique) -> str:
    name = unique("traps")
    await ensure_topics(settings, {name: (1, {}), f"{name}-victim": (1, {})})
    return name


@pytest.fixture(params=[True, False], ids=["fixed", "trap"])
def fixed(request: pytest.FixtureRequest) -> bool:
    return request.param


async def send(settings, topic: str, values: list[str], headers: Any = ()) -> None:
    async with plain_producer(settings) as producer:
        for value in values:
            await producer.send_and_wait(topic, value.encode(), headers=list(headers))


async def work_off(
    settings, topic: str, path: Path, *, fixed: bool, fails_on: str | None = None, **trap: Any
) -> None:
    """Run members, one after the other, until one ends without an error."""
    for _ in range(3):
        consumer = fs.Consumer(settings.bootstrap_servers, topic, fs.Sink(path), fixed=fixed, **trap)
        consumer.fails_on, fails_on = fails_on, None
        try:
            await consumer.run()
        except RuntimeError:
            continue
        return


def verdict_of(path: Path, sent: list[str]) -> Verdict:
    return check(sent, fs.Sink(path).values())


async def test_trap_1_kill_9(settings, topic, tmp_path, fixed) -> None:
    """The default acknowledges before handling: kill -9 loses what was in between."""
    path = tmp_path / "sink"
    values = [f"v{number}" for number in range(60)]
    await send(settings, topic, values)
    command = [sys.executable, str(SCRIPT), settings.bootstrap_servers, topic, str(path)]
    command.append("fixed" if fixed else "default")
    await asyncio.to_thread(_kill_in_the_middle, command, path)
    await asyncio.to_thread(subprocess.run, command, timeout=60, check=True)
    verdict = verdict_of(path, values)
    assert verdict.ok if fixed else verdict.lost, verdict


def _kill_in_the_middle(command: list[str], path: Path) -> None:
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while len(fs.Sink(path).values()) < 10 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()


async def test_trap_2_ack_on_exception(settings, topic, tmp_path, fixed) -> None:
    """ACK commits although the handler has failed."""
    path = tmp_path / "sink"
    await send(settings, topic, VALUES)
    await work_off(settings, topic, path, fixed=fixed, fails_on="v7", ack_policy=AckPolicy.ACK)
    await work_off(settings, topic, path, fixed=fixed, ack_policy=AckPolicy.ACK)
    verdict = verdict_of(path, VALUES)
    assert verdict.ok if fixed else verdict.lost == ("v7",), verdict


async def test_trap_4_a_later_success_commits_past_a_failure(settings, topic, tmp_path, fixed) -> None:
    """MANUAL alone does not help: the exception is logged, the next record acknowledges both."""
    path = tmp_path / "sink"
    await send(settings, topic, VALUES)
    await work_off(settings, topic, path, fixed=fixed, fails_on="v7")
    await work_off(settings, topic, path, fixed=fixed)
    verdict = verdict_of(path, VALUES)
    assert verdict.ok if fixed else verdict.lost == ("v7",), verdict


async def test_trap_5_a_null_header(settings, topic, tmp_path, fixed) -> None:
    """FastStream's parser fails on it before the handler can do anything."""
    path = tmp_path / "sink"
    await send(settings, topic, VALUES[:5])
    await send(settings, topic, ["odd"], [("null", None), ("bytes", b"\xff")])
    await send(settings, topic, VALUES[5:])
    await work_off(settings, topic, path, fixed=fixed)
    verdict = verdict_of(path, [*VALUES, "odd"])
    assert verdict.ok if fixed else verdict.lost == ("odd",), verdict


async def test_trap_6_reply_to(settings, topic, tmp_path, fixed) -> None:
    """Any sender could make the service write to any topic."""
    victim = f"{topic}-victim"
    await send(settings, topic, VALUES[:3], [("reply_to", victim.encode()), ("correlation_id", b"1")])
    consumer = fs.Consumer(settings.bootstrap_servers, topic, fs.Sink(tmp_path / "sink"), fixed=fixed)
    consumer.answer = b"a secret"
    await consumer.run()
    verdict = check([], await identities(settings, victim, lambda record: record.value.decode()))
    assert verdict.ok if fixed else verdict.unexpected == ("a secret",), verdict

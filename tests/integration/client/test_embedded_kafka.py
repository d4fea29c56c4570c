"""The embedded broker keeps what it acknowledged, and dies with whoever started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from everloop.embedded import Kafka
from everloop.errors import EverloopError

pytestmark = pytest.mark.integration

STARTER = """
import sys, time
from pathlib import Path
from everloop.embedded import Kafka, Postgres
folder = Path(sys.argv[1])
with Kafka(folder / "kafka", port=0) as kafka, Postgres(folder / "postgres", port=0) as postgres:
    print(kafka.child.pid, postgres.child.pid, flush=True)
    time.sleep(120)
"""


async def create_topic(broker: Kafka, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, 1)])
    finally:
        await admin.close()


async def send(broker: Kafka, topic: str, count: int) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=broker.bootstrap_servers, acks="all", enable_idempotence=True
    )
    await producer.start()
    try:
        for number in range(count):
            await producer.send_and_wait(topic, str(number).encode())
    finally:
        await producer.stop()


async def read(broker: Kafka, topic: str) -> list[int]:
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap_servers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        found: list[int] = []
        while len(found) < end:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found += [int(record.value) for record in records]
        return found
    finally:
        await consumer.stop()


async def test_acknowledged_records_survive_kill_nine(own_kafka: Kafka):
    """What a producer was told is safe must be there after a crash, and the broker back within seconds."""
    await create_topic(own_kafka, "kept")
    await send(own_kafka, "kept", 50)
    own_kafka.child.signal(signal.SIGKILL)
    own_kafka.child.wait(5)
    begun = time.monotonic()
    own_kafka.start()
    assert time.monotonic() - begun < 15
    assert await read(own_kafka, "kept") == list(range(50))


def test_a_broker_on_a_taken_port_says_whose_it_is(own_kafka: Kafka, tmp_path: Path):
    """The usual first error of a second stack."""
    with pytest.raises(EverloopError, match=rf"Port {own_kafka.port}, wanted for Kafka, is in use by java"):
        Kafka(tmp_path / "second", port=own_kafka.port).start()


def test_a_setting_that_kafka_refuses_is_shown(tmp_path: Path):
    """A mistake in a setting must come with Kafka's own words and where the log is."""
    broker = Kafka(tmp_path / "kafka", port=0, settings={"num.io.threads": "none"})
    with pytest.raises(EverloopError, match=r"num\.io\.threads"):
        broker.start()


def test_no_server_outlives_a_starter_that_was_killed(tmp_path: Path):
    """Kill -9 of a test run or of `everloop up` must leave no broker and no database behind."""
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    pids = [int(pid) for pid in starter.stdout.readline().split()]
    servers = [psutil.Process(pid) for pid in pids]
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait(5)
    starter.stdout.close()
    _, alive = psutil.wait_procs(servers, timeout=10)
    assert len(pids) == 2
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []

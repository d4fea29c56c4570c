"""Many pipelines on one stack."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import ConsumerRecord
from e2e.small_loop import eventually
from everloop.client import Client
from everloop.stack import Ports, Stack
from everloop_kernel.exactly_once import identities
from everloop_kernel.settings import KafkaSettings

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

COUNT = 30
ROWS = 6
FILE = """
pipeline: pump-{number}
partition_by: [site]
partitions: {partitions}
observation:
  event_time: at
  fields:
    site: {{type: category}}
    heat: {{type: number}}
label:
  type: binary
  fields: {{hours_left: {{type: number}}}}
  value: {{fails: hours_left < 24}}
features:
  heat: heat
  readings_1d: count(window='1d', by=[site])
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Those who compute vectors, and those who record them."""
    folder: Path = tmp_path_factory.mktemp("many")
    services = ("registry", "ingest", "feature", "trainer", "monitor")
    with Stack(folder, ports=Ports.free(), fsync=False, services=services) as running:
        yield running


def test_each_of_many_pipelines_gets_its_own_vectors(stack: Stack) -> None:
    """A pipeline that is lost among others, or gets another's records, would answer wrongly in silence."""
    with Client(stack.addresses) as client:
        for number in range(COUNT):
            client.apply(FILE.format(number=number, partitions=1 + number % 3))
            publish(client, number)
    for number in range(COUNT):
        eventually(
            f"pump-{number} has its vectors", lambda number=number: vectors(stack, number).total() >= ROWS
        )
    assert [vectors(stack, number) for number in range(COUNT)] == [wanted(number) for number in range(COUNT)]
    eventually("every service has read everything", lambda: asyncio.run(stack.lag()) == 0)
    assert {name: used.restarts for name, used in stack.services.items() if used.restarts} == {}


def publish(client: Client, number: int) -> None:
    """A few observations of two sites."""
    rows = [
        {
            "id": f"{number}-{row}",
            "at": f"2026-01-01T00:0{row}:00Z",
            "site": f"site-{row % 2}",
            "heat": number,
        }
        for row in range(ROWS)
    ]
    assert client.publish(f"pump-{number}", "observations", rows).accepted == ROWS


def vectors(stack: Stack, number: int) -> Counter[tuple[str, int, int]]:
    """Of each vector: whose it is, the heat, and how many readings its site had before."""
    kafka = KafkaSettings(bootstrap_servers=stack.addresses.kafka)
    found = asyncio.run(identities(kafka, f"feature-vector-computed-v1.pump-{number}", _text))
    return Counter((each["id"], *each["values"]) for each in map(json.loads, found))


def wanted(number: int) -> Counter[tuple[str, int, int]]:
    """What came before counts, within its site."""
    return Counter((f"{number}-{row}", number, row // 2) for row in range(ROWS))


def _text(record: ConsumerRecord) -> str:
    value: bytes = record.value
    return value.decode()

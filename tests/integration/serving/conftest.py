import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from everloop_kernel.settings import KafkaSettings
from integration.serving.deployed_model import Signer, artifact, reference
from integration.serving.serving_process import ServingProcess, publish


class Served(NamedTuple):
    name: str
    artifact: bytes
    process: ServingProcess


@pytest.fixture
def kafka_settings(kafka) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)


@pytest.fixture
def signer() -> Signer:
    return Signer()


@pytest.fixture(scope="module")
def served(kafka, tmp_path_factory) -> Iterator[Served]:
    """A serving process with one model, version 4, for all tests of a module."""
    folder, signer = tmp_path_factory.mktemp("served"), Signer()
    signer.trust_in(folder / "data" / "keys")
    name = f"served-{uuid.uuid4().hex[:8]}"
    data = artifact(name)
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)
    asyncio.run(publish(settings, signer.deployment(name, 1, reference(data, 4)), data))
    process = ServingProcess(kafka.bootstrap_servers, folder / "data")
    process.start()
    process.wait_for(f"/v2/models/{name}/ready")
    process.wait_for("/health/ready")
    yield Served(name, data, process)
    assert process.stop() == 0


@pytest.fixture
def serving(kafka, tmp_path: Path, signer: Signer) -> Iterator[ServingProcess]:
    """A serving process that trusts `signer`; the test starts it."""
    signer.trust_in(tmp_path / "data" / "keys")
    process = ServingProcess(kafka.bootstrap_servers, tmp_path / "data")
    yield process
    process.stop()

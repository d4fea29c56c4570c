from collections.abc import Iterator
from pathlib import Path

import pytest
from everloop_kernel.settings import KafkaSettings
from integration.serving.deployed_model import Signer
from integration.serving.serving_process import ServingProcess


@pytest.fixture
def kafka_settings(kafka) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)


@pytest.fixture
def signer() -> Signer:
    return Signer()


@pytest.fixture
def serving(kafka, tmp_path: Path, signer: Signer) -> Iterator[ServingProcess]:
    """A serving process that trusts `signer`; the test starts it."""
    signer.trust_in(tmp_path / "data" / "keys")
    process = ServingProcess(kafka.bootstrap_servers, tmp_path / "data")
    yield process
    process.stop()

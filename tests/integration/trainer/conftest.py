"""A broker and a directory for each module: the trainer's topics and groups have fixed names."""

import pytest
from everloop.embedded import Kafka


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """A broker of this module alone: the trainer's topics and groups have fixed names."""
    with Kafka(tmp_path_factory.mktemp("trainer-kafka"), port=0) as running:
        yield running.bootstrap_servers


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("trainer")

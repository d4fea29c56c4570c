import asyncio
from collections.abc import Iterator

import pytest
from everloop.embedded import Kafka
from everloop_kernel.admin import ensure_topics
from everloop_schemas.topics import platform_topics
from integration.history.history_rig import Rig


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A broker of this module alone (the groups have fixed names), with ingest and feature on it."""
    folder = tmp_path_factory.mktemp("history")
    with Kafka(folder / "kafka", port=0) as broker:
        found = Rig(broker.bootstrap_servers, folder)
        asyncio.run(ensure_topics(found.kafka, platform_topics()))
        found.start("ingest")
        found.start("feature")
        try:
            found.wait_ready("ingest")
            found.wait_ready("feature")
            yield found
        finally:
            found.stop()

"""A service for tests to kill: `JSON [--relay] [--record] [--slow] [--die-before-delete]`.

It records every message in the table `applied` and emits it to the target topic. What it does to itself on
request is done here, from outside of the kernel.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from everloop_kernel.recorder import (
    Message,
    OutboxRelay,
    Recorder,
    Subscription,
    Transaction,
    open_pool,
    outbox,
)
from everloop_kernel.service import main, serve
from everloop_kernel.settings import KafkaSettings, PlatformSettings, PostgresSettings

NAMES = json.loads(sys.argv[1])
FLAGS = set(sys.argv[2:])


async def on_messages(messages: Sequence[Message], work: Transaction) -> None:
    rows = [(m.topic, m.partition, m.offset, m.value, os.getpid()) for m in messages]
    await work.connection.executemany("INSERT INTO applied VALUES ($1, $2, $3, $4, $5)", rows)
    if "--slow" in FLAGS:
        await asyncio.sleep(0.02)
    for message in messages:
        work.emit_raw(NAMES["target"], message.value, message.value)


def die_before_delete() -> None:
    """Kill this process when the relay has published and is about to delete."""
    delete = outbox.delete_up_to

    async def die(connection: Any, last: int) -> None:
        if await connection.fetchval("SELECT count(*) FROM outbox WHERE id <= $1", last):
            os.kill(os.getpid(), signal.SIGKILL)
        await delete(connection, last)

    outbox.delete_up_to = die


async def run() -> int:
    kafka, platform, postgres = KafkaSettings(), PlatformSettings(), PostgresSettings()
    pool = await open_pool(postgres, NAMES["service"])
    components: list[Any] = []
    if "--die-before-delete" in FLAGS:
        die_before_delete()
    if "--record" in FLAGS:
        wanted = Subscription(NAMES["group"], [NAMES["source"]], handler=on_messages, max_records=50)
        components.append(Recorder(NAMES["service"], kafka, pool, platform, [wanted]))
    if "--relay" in FLAGS:
        components.append(
            OutboxRelay(NAMES["service"], kafka, pool, platform, marker=f"{NAMES['group']}-dlq")
        )
    return await serve(NAMES["service"], components, platform=platform, http=None)


if __name__ == "__main__":
    main(run)

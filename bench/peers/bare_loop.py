"""The peer: aiokafka alone, well tuned, from one topic to another. No guarantee, no feature, no state.

    python bare_loop.py BOOTSTRAP IN OUT raw|msgspec

`raw` passes the bytes on as they are; `msgspec` decodes each value and encodes it again.
"""

import asyncio
import gc
import sys

import msgspec
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

GROUP = "bench-bare"


async def run(bootstrap: str, source: str, target: str, mode: str) -> None:
    decode, encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode
    consumer = AIOKafkaConsumer(
        source, bootstrap_servers=bootstrap, group_id=GROUP, auto_offset_reset="earliest",
        enable_auto_commit=False, max_partition_fetch_bytes=4 << 20, fetch_max_bytes=32 << 20,
        check_crcs=False,
    )  # fmt: skip
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks=1, max_batch_size=512 << 10, max_request_size=8 << 20
    )
    await consumer.start()
    await producer.start()
    while True:
        sent = []
        for at, records in (await consumer.getmany(timeout_ms=500, max_records=16_000)).items():
            batch = producer.create_batch()
            for record in records:
                value = record.value if mode == "raw" else encode(decode(record.value))
                if batch.append(timestamp=None, key=record.key, value=value) is None:
                    sent.append(await producer.send_batch(batch, target, partition=at.partition))
                    batch = producer.create_batch()
                    batch.append(timestamp=None, key=record.key, value=value)
            sent.append(await producer.send_batch(batch, target, partition=at.partition))
        if sent:
            await asyncio.gather(*sent)
            await consumer.commit()


if __name__ == "__main__":
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    uvloop.run(run(*sys.argv[1:]))

"""The peers of ingest's HTTP edge, as a team would write them in an afternoon.

    naive_edge.py BOOTSTRAP PORT

`/observations` checks each row with pydantic and publishes it; `/topics` takes the body of Confluent's REST
Proxy, `{"records": [{"key", "value"}]}`, and publishes it unchecked. Both answer after the broker's
acknowledgement, say something of each row, and use an idempotent producer.
"""

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Literal

import uvicorn
from aiokafka import AIOKafkaProducer
from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

TOPIC = "bench-peer-edge"
Carrier = Literal[
    "UA", "AA", "DL", "B6", "EV", "MQ", "US", "WN", "VX", "FL", "AS", "9E", "F9", "HA", "YV", "OO"
]  # fmt: skip


class Observation(BaseModel):
    model_config = ConfigDict(extra="forbid")
    id: str = Field(min_length=1, max_length=200)
    scheduled_departure: datetime
    known_at: datetime | None = None
    origin: str
    carrier: Carrier
    dest: str
    distance: float = Field(ge=0, le=6000)
    seats: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=-60, le=140)
    wind: float | None = Field(None, ge=0)
    precipitation: float | None = None


ROWS = TypeAdapter(list[Observation])


class Kafka:
    producer: AIOKafkaProducer


@asynccontextmanager
async def lifespan(_app: FastAPI):
    Kafka.producer = AIOKafkaProducer(bootstrap_servers=sys.argv[1], enable_idempotence=True, acks="all")
    await Kafka.producer.start()
    yield
    await Kafka.producer.stop()


app = FastAPI(lifespan=lifespan)


@app.post("/observations", status_code=202)
async def observations(body: list[Observation] | Observation) -> dict:
    rows = body if isinstance(body, list) else [body]
    sent = [
        await Kafka.producer.send(TOPIC, row.model_dump_json().encode(), row.origin.encode()) for row in rows
    ]
    await asyncio.gather(*sent)
    return {"accepted": len(rows), "results": [{"status": "accepted", "id": row.id} for row in rows]}


@app.post("/topics")
async def topics(request: Request) -> dict:
    records = (await request.json())["records"]
    sent = [
        await Kafka.producer.send(
            TOPIC, json.dumps(record["value"]).encode(), json.dumps(record["key"]).encode()
        )
        for record in records
    ]
    acked = await asyncio.gather(*sent)
    return {"offsets": [{"partition": each.partition, "offset": each.offset} for each in acked]}


if __name__ == "__main__":
    uvicorn.run(
        app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False, loop="uvloop"
    )

# ruff: noqa: E501  # options side by side
"""A small trained model, its artifact, and a registry's signature: what serving reads, without the services."""

import base64
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import lightgbm
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from everloop_features import Encoder, compile  # noqa: A004
from everloop_schemas import canonical
from everloop_schemas.events import ArtifactRef, DeploymentChanged, ModelRef
from everloop_schemas.pipeline import Pipeline, from_definition, load, to_definition
from everloop_schemas.signing import signed_bytes

PIPELINE = """
pipeline: NAME
partition_by: [origin]
observation:
  event_time: departs
  fields:
    origin: {type: category, values: [EWR, JFK, LGA]}
    carrier: {type: category, nullable: true}
    distance: {type: number}
    wind: {type: number, nullable: true}
    seats: {type: integer, nullable: true}
    holiday: {type: boolean, nullable: true}
label:
  type: binary
  fields: {delay: {type: number}}
  value: {late: delay > 15}
features:
  hour: hour(event_time)
  origin: origin
  route: concat(origin, '-', coalesce(carrier, 'none'))
  distance: log1p(distance)
  wind: wind
  seats: seats
  holiday: holiday
  origin_flights_1h: count(window='1h', by=[origin])
  origin_late_6h: mean(late, window='6h', by=[origin], over=labels)
"""
RECORD = {
    "departs": "2013-01-01T05:15:00Z",
    "origin": "EWR",
    "carrier": "UA",
    "distance": 1400.0,
    "wind": 7.5,
    "seats": 149,
    "holiday": True,
}
DATATYPES = {"distance": "FP64", "wind": "FP64", "seats": "INT64", "holiday": "BOOL"}


def infer_body(rows: list[dict], request_id: str | None = None, **more) -> dict:
    """An inference request for records as producers send them."""
    inputs = [
        {
            "name": name,
            "datatype": DATATYPES.get(name, "BYTES"),
            "shape": [len(rows)],
            "data": [r[name] for r in rows],
        }
        for name in rows[0]
    ]
    return {**({"id": request_id} if request_id else {}), "inputs": inputs, **more}


def pipeline_named(name: str) -> Pipeline:
    loaded = load(PIPELINE.replace("NAME", name))
    assert isinstance(loaded, Pipeline), loaded
    return loaded


@cache
def trained_text(seed: int, trees: int, leaves: int) -> str:
    """A model text for PIPELINE's nine features."""
    rng = np.random.default_rng(seed)
    count = 4000
    columns = {
        "hour": rng.integers(0, 24, count),
        "origin": rng.integers(0, 3, count),
        "route": rng.integers(0, 9, count),
        "distance": rng.normal(7, 1, count),
        "wind": rng.normal(10, 5, count),
        "seats": rng.integers(50, 300, count),
        "holiday": rng.integers(0, 2, count),
        "origin_flights_1h": rng.integers(0, 40, count),
        "origin_late_6h": rng.random(count),
    }
    score = columns["wind"] / 10 + columns["origin_late_6h"] + rng.normal(size=count)
    names = list(compile(pipeline_named("any")).names)
    matrix = np.column_stack([columns[name] for name in names]).astype(float)
    matrix[rng.random(matrix.shape) < 0.05] = np.nan
    kinds = [names.index("origin"), names.index("route")]
    data = lightgbm.Dataset(
        matrix, (score > score.mean()).astype(float), feature_name=names, categorical_feature=kinds
    )
    options = {
        "objective": "binary", "num_leaves": leaves, "seed": seed, "deterministic": True, "force_row_wise": True,
        "num_threads": 1, "verbose": -1,
    }  # fmt: skip
    return lightgbm.train(options, data, trees).model_to_string()


def artifact(
    name: str, *, pipeline_version: int = 1, seed: int = 1, trees: int = 20, leaves: int = 31, text=None
) -> bytes:
    """The bytes that the trainer publishes."""
    pipeline = pipeline_named(name)
    compiled = compile(pipeline)
    model = trained_text(seed, trees, leaves)
    carriers = ["UA", "AA", "none"]
    features = [
        {"name": n, "type": t, **({"categories": _categories(n, carriers)} if t == "category" else {})}
        for n, t in zip(compiled.names, compiled.types, strict=True)
    ]
    encoder = Encoder(features)
    vectors = [compiled.vector({**RECORD, "wind": w, "origin": o}, 0, compiled.new_state(1))
               for w in (None, 1.0, 9.5, 30.0) for o in ("EWR", "JFK", "LGA", "BOS", None)]  # fmt: skip
    outputs = lightgbm.Booster(model_str=model).predict(np.array([encoder.row(v) for v in vectors]))
    manifest = {
        "format": 1, "pipeline": name, "pipeline_version": pipeline_version, "task": "binary", "features": features,
        "pipeline_sha256": "0" * 64, "objective": "binary", "lightgbm": lightgbm.__version__, "run_id": "r1",
        "definition": to_definition(pipeline),
        "golden": [{"values": v, "output": float(o)} for v, o in zip(vectors, outputs, strict=True)],
    }  # fmt: skip
    return packed(manifest, text if text is not None else model.encode())


def _categories(name: str, carriers: list[str]) -> list[str]:
    origins = ["EWR", "JFK", "LGA"]
    return origins if name == "origin" else sorted(f"{o}-{c}" for o in origins for c in carriers)


def packed(manifest: dict, model: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in (("manifest.json", canonical.dumps(manifest)), ("model.txt", model)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def expected_output(data: bytes, record: dict) -> float:
    """What LightGBM's own package answers for a record, without any state."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        manifest = json.loads(tar.extractfile("manifest.json").read())
        text = tar.extractfile("model.txt").read().decode()
    compiled = compile(from_definition(manifest["definition"]))
    moment = datetime.fromisoformat(record["departs"])
    vector = compiled.vector(record, round(moment.timestamp() * 1e6), compiled.new_state(1))
    return float(
        lightgbm.Booster(model_str=text).predict(np.array([Encoder(manifest["features"]).row(vector)]))[0]
    )


def reference(data: bytes, version: int, pipeline_version: int = 1) -> ModelRef:
    digest = hashlib.sha256(data).hexdigest()
    chunks = -(-len(data) // (512 << 10))
    return ModelRef(
        model_version=version,
        pipeline_version=pipeline_version,
        artifact=ArtifactRef(sha256=digest, bytes=len(data), chunks=chunks),
    )


@dataclass
class Signer:
    """A registry's key."""

    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def raw(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    @property
    def key_id(self) -> str:
        return hashlib.sha256(self.raw).hexdigest()[:16]

    def trust_in(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.key_id}.pub").write_text(self.raw.hex())

    def deployment(self, name: str, revision: int, champion: ModelRef | None, **more) -> DeploymentChanged:
        unsigned = DeploymentChanged(
            pipeline=name, revision=revision, champion=champion, reason="test", changed_at=datetime.now(UTC),
            key_id=self.key_id, signature="", **more,
        )  # fmt: skip
        signature = base64.b64encode(self.key.sign(signed_bytes(unsigned))).decode()
        return unsigned.model_copy(update={"signature": signature})

# ruff: noqa: E501, RUF001  # tables of hard values
"""Mutants of a model artifact: cut, flipped, rearranged, and changed where it hurts.

Some know the format: they change one number of one tree, or one member of the manifest, and pack the result
anew, as a trainer with a defect or an attacker with the registry's key could.
"""

import io
import json
import random
import re
import tarfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

__all__ = ["Mutant", "mutants"]

HARD_NUMBERS = (
    "-1", "0", "1", "2", "-2", "63", "64", "255", "-128", "999999", "2147483647", "-2147483648", "4294967296",
    "9223372036854775807", "1e308", "1e309", "-1e309", "nan", "inf", "-inf", "", "x", "0x10", "1_0", "١", "1.5", "1 1",
)  # fmt: skip
HARD_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 1.5, 1e308, 2**53, 10**30, "", "x", "\u0000", "é" * 5000, [], {}, [[]], [None], {"a": {}},
    ["x"] * 10_000, {"x": ["x"]},
)  # fmt: skip
NUMBERS = re.compile(rb"^(\w+)=(.*)$", re.MULTILINE)


class Mutant(NamedTuple):
    """The bytes, and what was done to them."""

    kind: str
    data: bytes


def mutants(artifact: bytes, count: int, seed: int = 1) -> Iterator[Mutant]:
    """So many mutants of an artifact, kinds in turn; the same ones for the same seed."""
    rng = random.Random(seed)
    manifest, model = unpacked(artifact)
    kinds: list[tuple[str, Callable[[], bytes]]] = [
        ("truncated", lambda: artifact[: rng.randrange(1, len(artifact))]),
        ("bits flipped", lambda: flipped(artifact, rng)),
        ("bytes repeated", lambda: repeated(artifact, rng)),
        ("zeros", lambda: zeroed(artifact, rng)),
        ("tar rearranged", lambda: rearranged(manifest, model, rng)),
        ("model: number", lambda: packed(manifest, changed_number(model, rng))),
        ("model: line", lambda: packed(manifest, changed_line(model, rng))),
        ("model: child or feature", lambda: packed(manifest, changed_index(model, rng))),
        ("model: bits flipped", lambda: packed(manifest, flipped(model, rng))),
        ("manifest: value", lambda: packed(changed_json(manifest, rng), model)),
        ("manifest: definition", lambda: packed(changed_definition(manifest, rng), model)),
        ("manifest: bits flipped", lambda: packed(flipped(manifest, rng), model)),
    ]
    for number in range(count):
        kind, make = kinds[number % len(kinds)]
        data = make()
        if data != artifact:
            yield Mutant(kind, data)


def unpacked(artifact: bytes) -> tuple[bytes, bytes]:
    with tarfile.open(fileobj=io.BytesIO(artifact)) as tar:
        return tuple(tar.extractfile(name).read() for name in ("manifest.json", "model.txt"))


def packed(
    manifest: bytes, model: bytes, *, members: tuple[str, ...] = ("manifest.json", "model.txt")
) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in members:
            content = manifest if name == "manifest.json" else model
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def flipped(data: bytes, rng: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def repeated(data: bytes, rng: random.Random) -> bytes:
    at, length = rng.randrange(len(data)), rng.choice((1, 64, 512, 4096))
    return data[:at] + data[at : at + length] * rng.choice((2, 3, 100)) + data[at + length :]


def zeroed(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        return bytes(rng.choice((1, 512, 10_240, len(data))))
    at = rng.randrange(len(data))
    return data[:at] + bytes(rng.choice((1, 8, 512))) + data[at + rng.choice((1, 8, 512)) :]


def rearranged(manifest: bytes, model: bytes, rng: random.Random) -> bytes:
    orders = (
        ("model.txt",), ("manifest.json",), (), ("manifest.json", "manifest.json", "model.txt"),
        ("manifest.json", "model.txt", "model.txt"), ("manifest.json", "model.txt", "../evil"),
        ("manifest.json", "/etc/passwd", "model.txt"), ("model.txt", "manifest.json", ""),
    )  # fmt: skip
    if rng.random() < 0.5:
        return packed(manifest, model, members=rng.choice(orders))
    data = bytearray(packed(manifest, model))
    field = rng.choice(
        ((124, 12), (100, 8), (148, 8), (156, 1), (257, 8))
    )  # size, mode, checksum, type, magic
    data[field[0] : sum(field)] = bytes(rng.choice(b"01234567 \x00\xff\x80") for _ in range(field[1]))
    return bytes(data)


def changed_number(model: bytes, rng: random.Random) -> bytes:
    """One number of one line becomes a hard one."""
    line = rng.choice(list(NUMBERS.finditer(model)))
    words = line[2].split(b" ")
    words[rng.randrange(len(words))] = rng.choice(HARD_NUMBERS).encode()
    return model[: line.start(2)] + b" ".join(words) + model[line.end(2) :]


def changed_index(model: bytes, rng: random.Random) -> bytes:
    """A child, a feature, a decision or a category set that is a little wrong."""
    wanted = (
        b"left_child",
        b"right_child",
        b"split_feature",
        b"decision_type",
        b"cat_boundaries",
        b"num_leaves",
        b"num_cat",
    )
    line = rng.choice([found for found in NUMBERS.finditer(model) if found[1] in wanted])
    words = line[2].split(b" ")
    at = rng.randrange(len(words))
    words[at] = str(int(words[at] or b"0") + rng.choice((-64, -2, -1, 1, 2, 31, 64))).encode()
    return model[: line.start(2)] + b" ".join(words) + model[line.end(2) :]


def changed_line(model: bytes, rng: random.Random) -> bytes:
    """A line is lost, doubled, moved, cut or named otherwise."""
    lines = model.split(b"\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(5):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[other])
        case 2:
            lines[at], lines[other] = lines[other], lines[at]
        case 3:
            lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]
        case _:
            lines[at] = b"x" + lines[at]
    return b"\n".join(lines)


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Every place within a JSON document."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield (*path, key)
            yield from places(value[key], (*path, key))


def changed_json(manifest: bytes, rng: random.Random, root: str | None = None) -> bytes:
    """One member has another value, is gone, or a new one came."""
    document = json.loads(manifest)
    start = document if root is None else document[root]
    *path, last = rng.choice(list(places(start)))
    parent = start
    for key in path:
        parent = parent[key]
    match rng.randrange(4):
        case 0:
            del parent[last]
        case 1 if isinstance(parent, dict):
            parent[rng.choice(("x", "", "type", "features", "__class__"))] = rng.choice(HARD_VALUES)
        case _:
            parent[last] = rng.choice(HARD_VALUES)
    return json.dumps(document).encode()


def changed_definition(manifest: bytes, rng: random.Random) -> bytes:
    """The pipeline that the model brings with it: it is compiled to code."""
    document = json.loads(manifest)
    features = document["definition"].get("features")
    if features and rng.random() < 0.5:
        name = rng.choice(list(features))
        features[name] = rng.choice(EXPRESSIONS)
        return json.dumps(document).encode()
    return changed_json(manifest, rng, "definition")


EXPRESSIONS = (
    "__import__('os').system('true')", "().__class__", "1/0", "(" * 500 + "1" + ")" * 500, "9**9**9", "origin" * 3000,
    "count(window='1h', by=[nobody])", "log1p(", "", "lambda: 1", "[x for x in y]", "'a' * 10**9", "exp(1e308)",
    "count(window='999999d', by=[origin])", "coalesce()", "if", "origin if origin else origin", "1 if True else 'x'",
)  # fmt: skip

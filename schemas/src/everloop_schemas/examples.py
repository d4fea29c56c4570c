"""Released examples of each event: package data that is only ever added to.

A manifest holds each file's SHA-256. Consumers must read every example for ever, since the log keeps records
for ever.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable

__all__ = ["MANIFEST", "Example", "added_to", "broken", "digests", "examples", "manifest", "unlisted"]

MANIFEST = "manifest.json"
Example = tuple[str, bytes]
"""A file's name and its bytes: one record's value."""


def _folder() -> Traversable:
    return files("everloop_schemas").joinpath("examples")


def examples(topic: str) -> list[Example]:
    """The released values of a topic (its base name), sorted by file name."""
    folder = _folder().joinpath(topic)
    if not folder.is_dir():
        return []
    found = [(entry.name, entry.read_bytes()) for entry in folder.iterdir() if entry.name.endswith(".json")]
    return sorted(found)


def digests() -> dict[str, str]:
    """The SHA-256 of every example that is there, by `topic/file`."""
    topics = sorted(entry.name for entry in _folder().iterdir() if entry.is_dir())
    return {
        f"{topic}/{name}": hashlib.sha256(data).hexdigest()
        for topic in topics
        for name, data in examples(topic)
    }


def manifest() -> dict[str, str]:
    """The SHA-256 of every example that was released."""
    found = _folder().joinpath(MANIFEST)
    return dict(json.loads(found.read_bytes())) if found.is_file() else {}


def added_to(known: Mapping[str, str], present: Mapping[str, str]) -> dict[str, str]:
    """The manifest with new examples added; what it already holds stays as it is."""
    return dict(sorted({**present, **known}.items()))


def broken(released: Mapping[str, str], present: Mapping[str, str]) -> Iterator[str]:
    """Say which released examples were changed or taken away."""
    for name, digest in released.items():
        if name not in present:
            yield f"examples/{name} was released and is gone; bring it back: consumers must read it for ever"
        elif present[name] != digest:
            yield f"examples/{name} was released and has changed; bring it back and add a new file instead"


def unlisted(listed: Mapping[str, str], present: Mapping[str, str]) -> Iterator[str]:
    """Say which examples the manifest does not hold yet."""
    for name in present:
        if name not in listed:
            yield f"examples/{name} is not in the manifest; run 'everloop-schemas generate'"

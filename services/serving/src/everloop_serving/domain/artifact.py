"""A model artifact: an uncompressed tar of `manifest.json` and `model.txt`."""

import io
import tarfile
from typing import Any, Literal

import msgspec

__all__ = ["Artifact", "BadArtifact", "GoldenPrediction", "Manifest", "ManifestFeature", "read_artifact"]

_FORMAT = 1
_MEMBERS = ("manifest.json", "model.txt")
_MOST_GOLDEN = 1000


class BadArtifact(ValueError):  # noqa: N818  (a finding about the file, not about the code)
    """The bytes are not an artifact that this version of serving can load."""


class ManifestFeature(msgspec.Struct, frozen=True):
    """One column of the model, in the model's order."""

    name: str
    type: Literal["number", "category", "boolean"]
    categories: list[str] = []


class GoldenPrediction(msgspec.Struct, frozen=True):
    """A vector and what the trainer's Booster answered for it: serving must answer the same bits."""

    values: list[bool | int | float | str | None]
    output: float


class Manifest(msgspec.Struct, frozen=True):
    """What the trainer says about its model. Unknown members are ignored."""

    format: int
    pipeline: str
    pipeline_version: int
    task: Literal["binary", "number"]
    features: list[ManifestFeature]
    golden: list[GoldenPrediction]
    definition: dict[str, Any]
    dataset: str | None = None
    """The SHA-256 of the rows that it was trained on."""


class Artifact(msgspec.Struct, frozen=True):
    """The manifest and the model's text, unchecked as yet."""

    manifest: Manifest
    model_text: bytes


def read_artifact(data: bytes) -> Artifact:
    """Take an artifact apart.

    Raises:
        BadArtifact: when a member is missing, repeated or not what it must be.
    """
    members = _members(data)
    try:
        manifest = msgspec.json.decode(members["manifest.json"], type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadArtifact(f"manifest.json: {error}") from error
    if manifest.format != _FORMAT:
        raise BadArtifact(f"the artifact's format is {manifest.format}; this serving reads {_FORMAT}")
    if not 1 <= len(manifest.golden) <= _MOST_GOLDEN:
        raise BadArtifact(f"manifest.json lists {len(manifest.golden)} golden predictions")
    if any(len(golden.values) != len(manifest.features) for golden in manifest.golden):
        raise BadArtifact("a golden prediction has another width than the features")
    return Artifact(manifest, members["model.txt"])


def _members(data: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                if member.name not in _MEMBERS or not member.isreg() or member.name in found:
                    raise BadArtifact(f"unexpected member {member.name!r} in the artifact")
                content = tar.extractfile(member)
                assert content is not None  # a regular file has content
                found[member.name] = content.read()
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        if isinstance(error, BadArtifact):
            raise
        raise BadArtifact(f"the artifact is no readable tar: {error}") from error
    for name in _MEMBERS:
        if name not in found:
            raise BadArtifact(f"the artifact has no {name}")
    return found

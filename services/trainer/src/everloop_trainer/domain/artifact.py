"""A model's bytes: an uncompressed tar, the same for the same model wherever and whenever it is packed."""

import io
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

from everloop_schemas import canonical
from everloop_schemas.events import Value

__all__ = ["FORMAT", "GOLDEN_ROWS", "golden_rows", "pack", "unpack_model"]

FORMAT = 1
GOLDEN_ROWS = 20
"""So many vectors travel with the outputs they must give, for the loader to try."""


def golden_rows(rows: int) -> list[int]:
    """Row indexes spread evenly over a dataset, first and last among them."""
    count = min(GOLDEN_ROWS, rows)
    if count < 2:  # noqa: PLR2004 - one row has no spread
        return list(range(count))
    return [i * (rows - 1) // (count - 1) for i in range(count)]


def golden(vectors: Sequence[Sequence[Value]], outputs: Sequence[float]) -> list[dict[str, Any]]:
    """The manifest's `golden` entries."""
    pairs = zip(vectors, outputs, strict=True)
    return [{"values": list(values), "output": output} for values, output in pairs]


def pack(manifest: Mapping[str, Any], model_text: str) -> bytes:
    """Pack `manifest.json` (canonical JSON) and `model.txt` with fixed owners, modes and times."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in (("manifest.json", canonical.dumps(manifest)), ("model.txt", model_text.encode())):
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(data), 0o644, 0
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def unpack_model(artifact: bytes) -> tuple[bytes, str]:
    """The manifest's bytes and the model's text. Raises ValueError where either is missing."""
    with tarfile.open(fileobj=io.BytesIO(artifact), mode="r:") as tar:
        manifest, model = (_member(tar, name) for name in ("manifest.json", "model.txt"))
    return manifest, model.decode()


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    try:
        member = tar.extractfile(name)
    except KeyError:
        member = None
    if member is None:
        raise ValueError(f"the artifact has no {name}")
    return member.read()

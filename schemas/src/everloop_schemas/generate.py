"""The generated documents, and how they differ from the committed ones."""

import difflib
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from everloop_schemas.asyncapi import asyncapi_document
from everloop_schemas.examples import MANIFEST, added_to, digests, manifest
from everloop_schemas.json_schemas import event_models, event_schema, pipeline_schema

__all__ = ["PACKAGE", "documents", "outdated", "schema_documents", "source_folder", "write"]

PACKAGE = Path(__file__).parent
_SHOWN_LINES = 12


def source_folder() -> Path:
    """The folder `schemas/` of the source tree that this package is run from."""
    return PACKAGE.parents[1]


def schema_documents() -> dict[str, dict[str, Any]]:
    """Every JSON Schema by its file's name; the pipeline file's among them."""
    events = {f"{topic}.schema.json": event_schema(model) for topic, model in event_models().items()}
    return {**events, "pipeline.schema.json": pipeline_schema()}


def documents(source: Path) -> dict[Path, str]:
    """Everything that is generated, by path: JSON Schemas, AsyncAPI, the examples' manifest."""
    folder = source / "generated"
    schemas = {folder / name: _text(schema) for name, schema in schema_documents().items()}
    examples = PACKAGE / "examples" / MANIFEST
    return {
        **schemas,
        folder / "asyncapi.json": _text(asyncapi_document()),
        examples: _text(added_to(manifest(), digests())),
    }


def write(generated: Mapping[Path, str]) -> list[Path]:
    """Write what differs; the paths that were written."""
    changed = [path for path, text in generated.items() if _read(path) != text]
    for path in changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(generated[path], encoding="utf-8")
    return changed


def outdated(generated: Mapping[Path, str], source: Path) -> Iterator[str]:
    """Each committed document that differs from what the code says, with the first lines of it."""
    for path, text in generated.items():
        committed = _read(path)
        if committed != text:
            before = (committed or "").splitlines()
            lines = difflib.unified_diff(before, text.splitlines(), n=1, lineterm="")
            yield "\n  ".join([f"{_short(path, source)} is out of date", *islice(lines, 2, _SHOWN_LINES)])
    for path in sorted((source / "generated").glob("*.json")):
        if path not in generated:
            yield f"{_short(path, source)} is generated no longer; delete it"


def _short(path: Path, source: Path) -> str:
    return str(path.relative_to(source)) if path.is_relative_to(source) else str(path)


def _read(path: Path) -> str | None:
    return path.read_text("utf-8") if path.is_file() else None


def _text(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False, sort_keys=False) + "\n"

"""The compatibility check: what has changed since the release, and whether it may.

A baseline is what was released: the copies in `schemas/released/`, another folder, or a git revision.
"""

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from everloop_schemas import examples
from everloop_schemas.compatibility import Change, Order, compare
from everloop_schemas.generate import schema_documents

__all__ = ["Baseline", "BaselineError", "Report", "check", "read_baseline", "release"]

PIPELINE_FILE = "pipeline.schema.json"
_EXAMPLES = "examples.json"
_GENERATED_IN_GIT = "schemas/generated"
_MANIFEST_IN_GIT = f"schemas/src/everloop_schemas/examples/{examples.MANIFEST}"


class BaselineError(Exception):
    """The baseline cannot be read; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """What was released: JSON Schemas by file name, and the examples' digests."""

    schemas: Mapping[str, Mapping[str, Any]]
    examples: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Report:
    """What the check found."""

    changes: list[Change] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether the current schemas may be released."""
        return not self.examples and all(change.kind == "compatible" for change in self.changes)

    def order(self) -> str:
        """The order of the whole rollout, in plain words."""
        if not self.changes:
            return "nothing to roll out"
        orders = {change.order for change in self.changes}
        ranked = [Order.UNKNOWN, Order.NEW_TOPIC, Order.CONSUMERS, Order.PRODUCERS, Order.ANY]
        return str(next(order for order in ranked if order in orders))


def check(baseline: Baseline, current: Mapping[str, Mapping[str, Any]] | None = None) -> Report:
    """Compare the current schemas (those of the code, unless given) and examples with `baseline`."""
    now = schema_documents() if current is None else current
    changes = [
        change for name in sorted({*baseline.schemas, *now}) for change in _changes(name, baseline, now)
    ]
    present, listed = examples.digests(), examples.manifest()
    found = [*examples.broken({**listed, **baseline.examples}, present), *examples.unlisted(listed, present)]
    return Report(changes, found)


def _changes(name: str, baseline: Baseline, now: Mapping[str, Mapping[str, Any]]) -> list[Change]:
    label = name.removesuffix(".schema.json")
    if name not in now:
        message = "the event is gone; its topic keeps its records"
        return [Change(label, "$", "breaking", "event-removed", message, Order.NEW_TOPIC)]
    if name not in baseline.schemas:
        return [Change(label, "$", "compatible", "event-added", "a new event", Order.ANY)]
    return compare(label, baseline.schemas[name], now[name], only_we_read=name == PIPELINE_FILE)


def read_baseline(against: str | None, source: Path) -> Baseline:
    """Read what was released: a folder, a git revision, or the copies in `source`/released.

    Raises:
        BaselineError: when there is nothing to compare with.
    """
    if against is None:
        return _from_folder(source / "released")
    return _from_folder(Path(against)) if Path(against).is_dir() else _from_git(against, source)


def _from_folder(folder: Path) -> Baseline:
    texts = {path.name: path.read_text("utf-8") for path in sorted(folder.glob("*.json"))}
    if not texts:
        raise BaselineError(
            f"{folder} holds no JSON Schemas; run 'everloop-schemas release' to make the first"
        )
    return _baseline(texts, str(folder))


def _from_git(revision: str, source: Path) -> Baseline:
    listing = _git(source, "ls-tree", "-r", "--name-only", "--full-tree", revision)
    paths = [path for path in listing.splitlines() if path.startswith(f"{_GENERATED_IN_GIT}/")]
    texts = {Path(path).name: _git(source, "show", f"{revision}:{path}") for path in paths}
    if _MANIFEST_IN_GIT in listing.splitlines():
        texts[_EXAMPLES] = _git(source, "show", f"{revision}:{_MANIFEST_IN_GIT}")
    if not texts:
        raise BaselineError(f"revision {revision} holds no {_GENERATED_IN_GIT}; name a later one")
    return _baseline(texts, revision)


def _baseline(texts: Mapping[str, str], where: str) -> Baseline:
    try:
        read = {name: json.loads(text) for name, text in texts.items()}
    except ValueError as error:
        raise BaselineError(f"a file of {where} is no JSON: {error}; restore it") from error
    schemas = {name: schema for name, schema in read.items() if name.endswith(".schema.json")}
    return Baseline(schemas, read.get(_EXAMPLES, {}))


def _git(folder: Path, *arguments: str) -> str:
    git = shutil.which("git")
    if git is None:
        raise BaselineError("git is not installed; give a folder to --against instead")
    command = [git, "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (fixed program)
    if done.returncode:
        mend = "give a folder or a revision that 'git show' knows to --against"
        raise BaselineError(f"{done.stderr.strip()[:200]}; {mend}")
    return done.stdout


def release(source: Path) -> list[Path]:
    """Make the current schemas and examples the released ones; the files that were written."""
    documents: dict[str, Mapping[str, Any]] = {**schema_documents(), _EXAMPLES: examples.manifest()}
    folder = source / "released"
    folder.mkdir(parents=True, exist_ok=True)
    for name, document in documents.items():
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in documents]

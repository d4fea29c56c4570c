"""What the contract says of history before any of it is sent: ingest's edge checks, and publishes nothing."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from everloop.history.records import Kind, Timed

__all__ = ["CheckEdge", "Checked", "check_records"]

_ROWS_PER_REQUEST = 2_000
_EXAMPLES = 5

CheckEdge = Callable[[Kind, Sequence[bytes]], Sequence[dict[str, Any]]]
"""(kind, the records' JSON) → what the edge would answer to each."""


@dataclass(slots=True)
class Checked:
    """Counts of a whole history; `reasons` are refused rows by (kind, field, rule)."""

    observations: int = 0
    labels: int = 0
    bytes: int = 0
    reasons: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)
    """The first refused rows: kind, row (from 0, in its file), id and violations."""

    @property
    def refused(self) -> int:
        """Rows that break the contract, each counted once: by its first violation."""
        return self.reasons.total()


def check_records(records: Iterable[Timed], ask: CheckEdge) -> Checked:
    """Ask about every record, in pages of one kind."""
    found = Checked()
    pages: dict[Kind, list[Timed]] = {"observation": [], "label": []}
    for record in records:
        page = pages["label" if record.is_label else "observation"]
        page.append(record)
        found.bytes += len(record.value)
        if len(page) == _ROWS_PER_REQUEST:
            _check_page(found, page, ask)
            page.clear()
    for page in pages.values():
        if page:
            _check_page(found, page, ask)
    return found


def _check_page(found: Checked, page: Sequence[Timed], ask: CheckEdge) -> None:
    kind: Kind = "label" if page[0].is_label else "observation"
    found.labels += len(page) * (kind == "label")
    found.observations += len(page) * (kind == "observation")
    for record, result in zip(page, ask(kind, [record.value for record in page]), strict=True):
        if result["status"] == "refused":
            first = result["violations"][0]
            found.reasons[kind, first["field"] or "record", first["rule"]] += 1
            if len(found.examples) < _EXAMPLES:
                told = {"id": result["id"], "violations": result["violations"]}
                found.examples.append({"kind": kind, "row": record.row, **told})

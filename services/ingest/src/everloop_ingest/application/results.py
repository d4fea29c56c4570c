"""What became of each row, in order, written as JSON as it becomes known, within bounds."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from everloop_schemas.events import Violation

from everloop_ingest.domain.contract import Refused

__all__ = ["MOST_BYTES", "MOST_RESULTS", "Results"]

MOST_RESULTS: Final = 10_000
"""Rows whose result is listed whatever it is; of the rows after them, only what was refused is listed."""
MOST_BYTES: Final = 2 << 20
"""Of all results together; what does not fit is counted."""
_MOST_VIOLATIONS: Final = 16
_ACCEPTED: Final = b'{"status":"accepted","id":%b}'
_encode: Final = msgspec.json.Encoder().encode


class Results:
    """The results of one request's rows."""

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = 0
        self.first: Mapping[str, Any] | None = None
        """The first refusal."""
        self._listed: list[bytes] = []
        self._bytes = 0

    @property
    def rows(self) -> int:
        """How many rows were looked at."""
        return self.accepted + self.refused

    def accept(
        self, row_id: str, *, warnings: Sequence[Violation] = (), quarantine: Sequence[Violation] = ()
    ) -> None:
        """A row was published, or will be; `quarantine`: why the worker will set it aside."""
        self.accepted += 1
        if warnings or quarantine:
            self._list(_encode(_marked(row_id, warnings=warnings, quarantine=quarantine)))
        elif len(self._listed) < MOST_RESULTS:
            self._list(_ACCEPTED % _encode(row_id))

    def refuse(self, outcome: Refused) -> None:
        """A row was refused."""
        found = _refusal(outcome, self.rows)
        self.refused += 1
        if self.first is None:
            self.first = found
        self._list(_encode(found))

    def _list(self, result: bytes) -> None:
        if self._bytes + len(result) <= MOST_BYTES:
            self._bytes += len(result) + 1
            self._listed.append(result)

    def members(self) -> Mapping[str, Any]:
        """The members of the answer's body."""
        left_out = self.rows - len(self._listed)
        return {
            "accepted": self.accepted,
            "refused": self.refused,
            "results": msgspec.Raw(b"[%b]" % b",".join(self._listed)),
            **({"results_left_out": left_out} if left_out else {}),
        }


def _marked(row_id: str, **reasons: Sequence[Violation]) -> dict[str, Any]:
    """The result of a row that is published although it breaks a rule."""
    shown = {
        name: [violation.model_dump() for violation in found[:_MOST_VIOLATIONS]]
        for name, found in reasons.items()
        if found
    }
    return {"status": "accepted", "id": row_id, **shown}


def _refusal(outcome: Refused, row: int) -> dict[str, Any]:
    violations: Sequence[Violation] = outcome.violations[:_MOST_VIOLATIONS]
    return {
        "status": "refused",
        "id": outcome.id,
        "row": row,
        "reason": outcome.violations[0].rule,
        "violations": [violation.model_dump() for violation in violations],
    }

"""Which column is what: the id, the event time, the key, the label; the others are fields."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from everloop.errors import UsageError
from everloop.first_steps.columns import TIME_WORDS, Column

__all__ = ["Roles", "Wishes", "guess_roles"]

_ID_WORDS = frozenset({"id", "uuid", "guid", "uid", "key", "rowid", "index"})
_KEY_WORDS = frozenset(
    [
        "site",
        "store",
        "shop",
        "station",
        "origin",
        "customer",
        "user",
        "client",
        "device",
        "sensor",
        "account",
        "region",
        "symbol",
        "machine",
        "pump",
        "vehicle",
        "merchant",
        "card",
        "patient",
        "meter",
        "line",
        "plant",
        "branch",
        "product",
        "item",
        "sku",
        "city",
        "country",
        "zone",
        "market",
    ]
)
_LABEL_NAMES = frozenset({"label", "target", "class", "outcome", "y"})
_LABEL_WORDS = frozenset(
    [
        "label",
        "target",
        "outcome",
        "churn",
        "churned",
        "fraud",
        "default",
        "defaulted",
        "failed",
        "failure",
        "late",
        "delay",
        "delayed",
        "returned",
        "converted",
        "conversion",
        "clicked",
        "click",
        "bought",
        "cancelled",
        "canceled",
        "survived",
        "approved",
        "response",
    ]
)
_LEAST_PER_KEY = 20
"""Rows of one key, on average, so that windows by key hold something."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """Headers that somebody has named; None where the guess decides."""

    id: str | None = None
    time: str | None = None
    key: str | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Roles:
    """What each column is. A role without a column is left to whoever sends the records."""

    id: Column | None
    time: Column | None
    key: Column | None
    label: Column | None
    fields: Sequence[Column]
    """The observation's, the key among them."""
    other_keys: Sequence[Column]
    other_labels: Sequence[Column]


def guess_roles(columns: Sequence[Column], wishes: Wishes) -> Roles:
    """Give each role to its best candidate. Raises UsageError for a wish that cannot be met."""
    time = _named(columns, wishes.time) or _first(_times(columns))
    if time and time.type != "timestamp":
        raise UsageError(f"The column {time.header!r} holds no times.", f"It holds: {time.type}.")
    rest = _without(columns, time)
    labels = _labels(rest)
    label = _named(rest, wishes.label) or (_first(labels) if len(rest) > 1 or time else None)
    rest = _without(rest, label)
    identifier = _named(rest, wishes.id) or _first(_ids(rest))
    fields = _without(rest, identifier)
    keys = _keys(fields)
    return Roles(
        id=identifier,
        time=time,
        key=_named(fields, wishes.key) or _first(keys),
        label=label,
        fields=fields,
        other_keys=keys[1:4],
        other_labels=[one for one in labels if one is not label][:3],
    )


def _named(columns: Sequence[Column], header: str | None) -> Column | None:
    if header is None:
        return None
    for column in columns:
        if header in (column.header, column.name):
            return column
    known = ", ".join(column.header for column in columns)
    raise UsageError(f"There is no column {header!r} for that.", f"The columns: {known}.")


def _first(columns: Sequence[Column]) -> Column | None:
    return columns[0] if columns else None


def _without(columns: Iterable[Column], one: Column | None) -> list[Column]:
    return [column for column in columns if column is not one]


def _times(columns: Sequence[Column]) -> list[Column]:
    """Without gaps, first named like a time, first with most different times."""
    found = [column for column in columns if column.type == "timestamp" and not column.missing]
    return sorted(found, key=lambda c: (TIME_WORDS.isdisjoint(c.words), -c.distinct, c.position))


def _ids(columns: Sequence[Column]) -> list[Column]:
    kinds = ("category", "string", "integer")
    return [
        column
        for column in columns
        if column.is_unique and column.type in kinds and not _ID_WORDS.isdisjoint(column.words)
    ]


def _keys(columns: Sequence[Column]) -> list[Column]:
    """Groups of rows: first named like one, then text before numbers, then the most groups."""
    found = [column for column in columns if _groups(column)]
    return sorted(found, key=lambda c: (*_key_rank(c), -c.distinct, c.position))


def _groups(column: Column) -> bool:
    enough = 1 < column.distinct <= column.rows / _LEAST_PER_KEY
    return column.missing == 0 and enough and column.type in ("category", "integer")


def _key_rank(column: Column) -> tuple[bool, bool]:
    is_named = not _KEY_WORDS.isdisjoint(column.words) or column.words[-1:] == ["id"]
    return not is_named, column.type != "category"


def _labels(columns: Sequence[Column]) -> list[Column]:
    """First by name, then what has two values, then numbers; the last column before the others."""
    found = [column for column in columns if _can_be_label(column)]
    return sorted(found, key=lambda c: (_label_rank(c), -c.position))


def _can_be_label(column: Column) -> bool:
    is_sequence = column.is_unique and not _ID_WORDS.isdisjoint(column.words)
    return column.distinct > 1 and column.type not in ("timestamp", "string") and not is_sequence


def _label_rank(column: Column) -> int:
    is_binary = column.distinct == 2  # noqa: PLR2004
    is_number = column.type in ("number", "integer")
    if "_".join(column.words) in _LABEL_NAMES:
        return 0
    if not _LABEL_WORDS.isdisjoint(column.words):
        return 1 if is_binary else 2
    return 3 if is_binary else 4 if is_number else 5

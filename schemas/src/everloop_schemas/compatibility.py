"""What a change of a JSON Schema means for those who run the other version.

A released event may only gain optional fields; whatever else changes belongs to a new topic, version N+1. A
change that this module does not understand is `unclassifiable` and fails too: silence is no approval.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from everloop_schemas.schema_shape import shape, text

__all__ = ["Change", "Order", "compare"]

Schema = Mapping[str, Any]
Kind = Literal["compatible", "breaking", "unclassifiable"]


class Order(StrEnum):
    """Who is rolled out first, in plain words."""

    PRODUCERS = "producers first: today's consumers ignore the new field, new ones see its default until then"
    CONSUMERS = "consumers first, on a new topic of the next version: today's refuse what would come"
    NEW_TOPIC = "consumers first, on a new topic of the next version: they could not read today's records"
    ANY = "any order"
    UNKNOWN = "not before a person has looked at it"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: where, what it is, what it means and the order of its rollout."""

    schema: str
    path: str
    kind: Kind
    rule: str
    message: str
    order: Order

    def __str__(self) -> str:
        return f"{self.schema}: {self.path}: {self.message} [{self.kind}: {self.rule}]; {self.order}"


_BOUNDS = {
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), 1),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), -1),
}
"""Bounds, with the direction in which they narrow."""
_COMPARED_ELSEWHERE = {"required", "default"}


def compare(name: str, old: Schema, new: Schema, *, only_we_read: bool = False) -> list[Change]:
    """Every change from `old` to `new`, two versions of the schema `name`.

    `only_we_read` is for the pipeline file: people write it and only the platform reads it, so accepting more
    than before breaks nobody.
    """
    return list(_Comparison(name, only_we_read=only_we_read).schemas(shape(old), shape(new), "$"))


class _Comparison:
    """One walk over two shapes side by side."""

    def __init__(self, name: str, *, only_we_read: bool) -> None:
        self._name = name
        self._only_we_read = only_we_read

    def schemas(self, old: Any, new: Any, path: str) -> Iterator[Change]:
        """Compare two schemas that stand at the same place."""
        if text(old) == text(new):
            return
        if not isinstance(old, dict) or not isinstance(new, dict):
            yield self._unclassifiable(path, "boolean-schema")
            return
        yield from self._default(old, new, path)
        if "anyOf" in old or "anyOf" in new:
            yield from self._alternatives(_branches(old), _branches(new), path)
            return
        for keyword in sorted({*old, *new} - _COMPARED_ELSEWHERE):
            if text(old.get(keyword)) != text(new.get(keyword)) or keyword == "properties":
                yield from self._keyword(keyword, old, new, path)
        if _required_elsewhere(old) != _required_elsewhere(new):
            yield self._unclassifiable(path, "required")

    def _keyword(self, keyword: str, old: Schema, new: Schema, path: str) -> Iterator[Change]:
        match keyword:
            case "type":
                yield from self._type(_types(old), _types(new), path)
            case "properties":
                yield from self._properties(old, new, path)
            case "enum":
                yield from self._values(_values(old), _values(new), path)
            case "pattern" | "format":
                yield self._exact(keyword, old.get(keyword), new.get(keyword), path)
            case "items":
                yield from self.schemas(old.get(keyword, {}), new.get(keyword, {}), f"{path}[]")
            case "additionalProperties":
                yield from self._inner(old.get(keyword, True), new.get(keyword, True), f"{path}.*")
            case "patternProperties":
                yield from self._pattern_properties(old.get(keyword, {}), new.get(keyword, {}), f"{path}.*")
            case _ if keyword in _BOUNDS:
                yield self._bound(keyword, old.get(keyword), new.get(keyword), path)
            case _:
                yield self._unclassifiable(path, keyword)

    def _unclassifiable(self, path: str, keyword: str) -> Change:
        message = f"'{keyword}' has changed, and this check does not know what that means"
        return Change(self._name, path, "unclassifiable", keyword, message, Order.UNKNOWN)

    def _narrowed(self, path: str, rule: str, message: str) -> Change:
        return Change(self._name, path, "breaking", rule, message, Order.NEW_TOPIC)

    def _widened(self, path: str, rule: str, message: str) -> Change:
        if self._only_we_read:
            return Change(self._name, path, "compatible", rule, message, Order.ANY)
        return Change(self._name, path, "breaking", rule, message, Order.CONSUMERS)

    def _default(self, old: Schema, new: Schema, path: str) -> Iterator[Change]:
        # a default that comes or goes belongs to 'required', which is compared with the properties
        if "default" in old and "default" in new and text(old["default"]) != text(new["default"]):
            message = (
                f"a missing value meant {_shown(old['default'])}, and would mean {_shown(new['default'])}"
            )
            yield self._narrowed(path, "default-changed", message)

    def _type(self, old: frozenset[str], new: frozenset[str], path: str) -> Iterator[Change]:
        if not old or not new:
            old, new = old or _ALL_TYPES, new or _ALL_TYPES
        if old - new:
            yield self._narrowed(path, "type-narrowed", f"{_listed(old - new)} is accepted no longer")
        if new - old:
            yield self._widened(path, "type-widened", f"{_listed(new - old)} would be accepted too")

    def _properties(self, old: Schema, new: Schema, path: str) -> Iterator[Change]:
        before, after = old.get("properties", {}), new.get("properties", {})
        for name, schema in before.items():
            if name not in after:
                yield self._narrowed(f"{path}.{name}", "field-removed", "the field is gone")
                continue
            yield from self._required(name, old, new, f"{path}.{name}")
            yield from self.schemas(schema, after[name], f"{path}.{name}")
        for name in after:
            if name not in before:
                yield self._added(f"{path}.{name}", required=name in new.get("required", ()))

    def _required(self, name: str, old: Schema, new: Schema, path: str) -> Iterator[Change]:
        before, after = name in old.get("required", ()), name in new.get("required", ())
        if after and not before:
            yield self._narrowed(path, "field-now-required", "the field was optional and is required")
        if before and not after:
            yield self._widened(path, "field-now-optional", "the field was required and could be missing")

    def _added(self, path: str, *, required: bool) -> Change:
        if required:
            return self._narrowed(
                path, "required-field-added", "a new field is required; old records lack it"
            )
        order = Order.ANY if self._only_we_read else Order.PRODUCERS
        return Change(self._name, path, "compatible", "optional-field-added", "a new optional field", order)

    def _values(self, old: frozenset[str] | None, new: frozenset[str] | None, path: str) -> Iterator[Change]:
        if old is None or (new is not None and old - new):
            gone = "every other value" if old is None else _listed(old - (new or frozenset()))
            yield self._narrowed(path, "values-removed", f"{gone} is accepted no longer")
        if new is None or (old is not None and new - old):
            come = "any value" if new is None else _listed(new - (old or frozenset()))
            yield self._widened(path, "values-added", f"{come} would be accepted too")

    def _bound(self, keyword: str, old: Any, new: Any, path: str) -> Change:
        message = f"{keyword} was {_shown(old)} and would be {_shown(new)}"
        if old is None or (new is not None and (new - old) * _BOUNDS[keyword] > 0):
            return self._narrowed(path, "bound-narrowed", message)
        return self._widened(path, "bound-widened", message)

    def _exact(self, keyword: str, old: Any, new: Any, path: str) -> Change:
        message = f"{keyword} was {_shown(old)} and would be {_shown(new)}"
        if new is None:
            return self._widened(path, f"{keyword}-changed", message)
        return self._narrowed(path, f"{keyword}-changed", message)

    def _inner(self, old: Any, new: Any, path: str) -> Iterator[Change]:
        if isinstance(old, dict) and isinstance(new, dict):
            yield from self.schemas(old, new, path)
        elif old is False or new is True:
            yield self._widened(path, "additional-opened", "more would be accepted than before")
        else:
            yield self._narrowed(path, "additional-closed", "less is accepted than before")

    def _pattern_properties(self, old: Schema, new: Schema, path: str) -> Iterator[Change]:
        if set(old) != set(new):
            yield self._narrowed(path, "pattern-changed", "the pattern of the names has changed")
            return
        for pattern, schema in old.items():
            yield from self.schemas(schema, new[pattern], path)

    def _alternatives(self, old: Sequence[Any], new: Sequence[Any], path: str) -> Iterator[Change]:
        """Set equal branches aside, then compare the only two left; anything else is beyond this check."""
        before, after = _unpaired(old, new), _unpaired(new, old)
        if len(before) == len(after) == 1:
            yield from self.schemas(before[0], after[0], path)
        elif before and after:
            yield self._unclassifiable(path, "anyOf")
        elif before:
            yield self._narrowed(path, "type-narrowed", f"{text(before)} is accepted no longer")
        elif after:
            yield self._widened(path, "type-widened", f"{text(after)} would be accepted too")


_ALL_TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})


def _types(schema: Schema) -> frozenset[str]:
    """The JSON types that are accepted; every integer is a number too. Empty: none are named."""
    named = schema.get("type", ())
    types = frozenset([named] if isinstance(named, str) else named)
    return types | {"integer"} if "number" in types else types


def _values(schema: Schema) -> frozenset[str] | None:
    """The accepted values as JSON text, or None where any is."""
    return frozenset(map(text, schema["enum"])) if "enum" in schema else None


def _required_elsewhere(schema: Schema) -> set[str]:
    """Required names that no property describes."""
    return set(schema.get("required", ())) - set(schema.get("properties", ()))


def _branches(schema: Schema) -> list[Any]:
    if "anyOf" not in schema:
        return [{key: value for key, value in schema.items() if key != "default"}]
    beside = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    return [{**beside, **branch} for branch in schema["anyOf"]]


def _unpaired(these: Sequence[Any], those: Sequence[Any]) -> list[Any]:
    known = set(map(text, those))
    return [branch for branch in these if text(branch) not in known]


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))


def _shown(value: Any) -> str:
    return "not set" if value is None else text(value)

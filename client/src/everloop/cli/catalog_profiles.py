"""How a pipeline's data has moved over its last trainings: a line for each field."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from everloop.cli.output import console, table, when

__all__ = ["print_profiles", "profile_rows", "trend"]

_BARS: Final = "▁▂▃▄▅▆▇█"
_CATEGORIES: Final = 3
_COLUMNS: Final = ("field", "trend", "null", "typical", "range (1 % to 99 %)")

Profile = Mapping[str, Any]


def print_profiles(profiles: Sequence[Profile], units: Mapping[str, str | None]) -> None:
    """Print what moved between the first and the last of these; `profiles` are the newest first."""
    if not profiles:
        console.print("No training has described its data yet.\n")
        return
    oldest, newest = profiles[-1], profiles[0]
    told = f"data of {len(profiles)} trainings, {_training(oldest)} → {_training(newest)}"
    console.print(told if len(profiles) > 1 else f"data of {_training(newest)}", markup=False)
    table(_COLUMNS, profile_rows(profiles, units), empty="No fields.")
    console.print()


def profile_rows(
    profiles: Sequence[Profile], units: Mapping[str, str | None]
) -> list[tuple[str, str, str, str, str]]:
    """The cells of each field that the newest training had."""
    return [
        _row(name, [_fields(one).get(name) for one in profiles[::-1]], units.get(name))
        for name in _fields(profiles[0])
    ]


def trend(values: Sequence[float | None]) -> str:
    """A small bar for each value, from the least to the most; a space where there is none.

    Example:
        >>> trend([1.0, None, 2.0, 1.5])
        '▁ █▄'
    """
    known = [value for value in values if value is not None]
    if len(known) <= 1:
        return ""
    low, high = min(known), max(known)
    steps = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(" " if value is None else _BARS[int((value - low) * steps + 1e-9)] for value in values)


def _row(name: str, fields: Sequence[Profile | None], unit: str | None) -> tuple[str, str, str, str, str]:
    """`fields` are the oldest first; None where a training did not have the field."""
    first = next(field for field in fields if field is not None)
    last = fields[-1] or first
    null = _moved(_percent(first["null"]), _percent(last["null"])) if first["null"] or last["null"] else ""
    return (
        name,
        trend([_center(field, last) for field in fields]),
        null,
        _typical(first, last, unit),
        _range(first, last),
    )


def _center(field: Profile | None, newest: Profile) -> float | None:
    """The one figure that the trend shows: the mean, the share of true, the share of the first category."""
    if field is None:
        return None
    top = next(iter(newest.get("shares", ())), None)
    value = field.get("mean", field.get("median", field.get("true", field.get("shares", {}).get(top))))
    return None if value is None else float(value)


def _typical(first: Profile, last: Profile, unit: str | None) -> str:
    if "median" in last:
        name = "mean" if "mean" in first and "mean" in last else "median"
        before = first.get(name)
        return f"{name} {_moved(_number(before), _number(last[name]))}{f' {unit}' if unit else ''}"
    if "true" in last:
        return f"true {_moved(_percent(first.get('true')), _percent(last['true']))}"
    shares = list(last.get("shares", {}).items())[:_CATEGORIES]
    before = first.get("shares", {})
    told = [f"{name} {_moved(_percent(before.get(name)), _percent(share))}" for name, share in shares]
    left = len(last.get("shares", {})) - len(told)
    return ", ".join(told) + (", …" if left > 0 else "")


def _range(first: Profile, last: Profile) -> str:
    if "low" in last:
        before = f"{_number(first.get('low'))} … {_number(first.get('high'))}"
        return _moved(before, f"{_number(last['low'])} … {_number(last['high'])}")
    if last.get("values") is not None:
        return _moved(*(f"{one.get('values', '-')} values" for one in (first, last)))
    return ""


def _moved(before: str, after: str) -> str:
    return after if before == after else f"{before} → {after}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}" if 0 < share < 0.01 else f"{share:.1%}"  # noqa: PLR2004  # small shares need digits


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _fields(profile: Profile) -> Mapping[str, Profile]:
    found: Mapping[str, Profile] = profile["fields"]
    return found


def _training(profile: Profile) -> str:
    version = profile["model_version"]
    named = f"model {version}" if version else f"run {profile['run_id'][:8]}"
    return f"{named} ({when(profile['profiled_at'])}, {profile['observations']} observations)"

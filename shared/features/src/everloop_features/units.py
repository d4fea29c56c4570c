"""Units of numbers, as far as they can be followed: `mi/h` is known to be miles by hours.

A unit is a tuple of (name, exponent), sorted by name; None is a number of no unit or of an unknown one,
which goes with every unit. A factor without a unit may be what turns one unit into another, so the product
has none.
"""

import re

from everloop_features.problems import ExpressionError

__all__ = ["Unit", "combined", "one_unit", "raised", "read_unit", "written"]

Unit = tuple[tuple[str, int], ...] | None

_PART = re.compile(r"([^\s*/^·0-9][^\s*/^·]*?)(?:\^(-?[1-9][0-9]?))?")


def read_unit(text: str | None) -> Unit:
    """The unit a field declares: names joined by `*` (or `·`) and `/`, each with a power such as `^2`.

    Text of another form is one name.
    """
    if not text or not text.strip():
        return None
    exponents: dict[str, int] = {}
    sign = 1
    for piece in re.split(r"([*/·])", text):
        if piece in ("*", "/", "·"):
            sign = -1 if piece == "/" else 1
            continue
        part = _PART.fullmatch(piece.strip())
        if part is None:
            return ((text.strip(), 1),)
        exponents[part[1]] = exponents.get(part[1], 0) + sign * int(part[2] or 1)
    return _normal(exponents)


def combined(left: Unit, right: Unit, sign: int) -> Unit:
    """The unit of a product (`sign` 1) or a quotient (-1); None as soon as one side has none."""
    if left is None or right is None:
        return None
    exponents = dict(left)
    for name, exponent in right:
        exponents[name] = exponents.get(name, 0) + sign * exponent
    return _normal(exponents)


def raised(unit: Unit, exponent: float) -> Unit:
    """The unit of a power; None where it would not be whole."""
    if unit is None or not all(float(power * exponent).is_integer() for _, power in unit):
        return None
    return _normal({name: int(power * exponent) for name, power in unit})


def one_unit(what: str, left: Unit, right: Unit) -> Unit:
    """The common unit of two numbers that are added or compared. Raises ExpressionError when they differ."""
    if left is not None and right is not None and left != right:
        raise ExpressionError(
            "unit",
            f"{what} have the units {written(left)!r} and {written(right)!r}",
            "convert one of them: multiplied by a plain number it takes on any unit",
        )
    return right if left is None else left


def written(unit: Unit) -> str:
    """A unit as a person writes it."""
    above = "*".join(_power(name, exponent) for name, exponent in unit or () if exponent > 0)
    below = "".join("/" + _power(name, -exponent) for name, exponent in unit or () if exponent < 0)
    return (above or "1") + below


def _power(name: str, exponent: int) -> str:
    return name if exponent == 1 else f"{name}^{exponent}"


def _normal(exponents: dict[str, int]) -> Unit:
    return tuple(sorted((name, exponent) for name, exponent in exponents.items() if exponent)) or None

"""What is wrong with an expression, before it is put into the pipeline's list of problems."""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["ExpressionError", "nearest"]


class ExpressionError(Exception):
    """An expression breaks a rule of the language: `rule` is a stable code, `mend` says what to do."""

    def __init__(self, rule: str, message: str, mend: str) -> None:
        super().__init__(message)
        self.rule = rule
        self.message = message
        self.mend = mend


def nearest(name: str, known: Iterable[str]) -> str:
    """A mend for an unknown name: the closest known one, or all of them."""
    choices = sorted(known)
    close = get_close_matches(name, choices, n=1)
    return f"did you mean {close[0]!r}?" if close else "use one of: " + ", ".join(choices)

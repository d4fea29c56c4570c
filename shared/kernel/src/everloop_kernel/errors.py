"""The kinds of failure that the kernel tells apart.

`PermanentError` concerns one record: it goes to the dead letters and the work goes on. Everything else is
retried where nothing is half done, within a bound, and then ends the process, which its supervisor restarts.
"""

__all__ = ["ConfigurationError", "EverloopError", "Fenced", "PermanentError", "one_line"]

_LONGEST_LINE = 500


class EverloopError(Exception):
    """Base of what the platform raises on purpose; its text is meant for people."""


class PermanentError(EverloopError):
    """Trying again cannot help: the record belongs to the dead letters.

    `reason_code` is stable and machine-readable (`no-such-pipeline`); `message` says what is wrong with the
    record.
    """

    def __init__(self, reason_code: str, message: str) -> None:
        super().__init__(message)
        self.reason_code = reason_code
        self.message = message


class Fenced(EverloopError):  # noqa: N818  (Kafka's word for it)
    """Another member of the group owns this work now: stop writing, and ask who owns it before going on."""


class ConfigurationError(EverloopError):
    """The process cannot start as it is set up: what is wrong, and how to mend it."""

    def __init__(self, message: str, mend: str) -> None:
        super().__init__(f"{message}. {mend}")
        self.message = message
        self.mend = mend


def one_line(error: BaseException) -> str:
    """The error as one readable line, without a traceback; a group of errors shows its first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = " ".join(str(error).split()) or "no further detail"
    if not isinstance(error, EverloopError):
        text = f"{type(error).__name__}: {text}"
    return text if len(text) <= _LONGEST_LINE else f"{text[:_LONGEST_LINE]}…"

"""Failures that a user can mend: one sentence for what is wrong, one for what to do."""

from everloop_kernel import errors

__all__ = ["EverloopError", "UsageError"]


class EverloopError(errors.EverloopError):
    """What went wrong, and what to do about it. The command prints both and exits with 1."""

    exit_code = 1

    def __init__(self, message: str, mend: str = "") -> None:
        super().__init__(message if not mend else f"{message}\n{mend}")
        self.message = message
        self.mend = mend


class UsageError(EverloopError):
    """The command was asked for something it does not know. Exit code 2."""

    exit_code = 2

"""The `everloop` command: one module a group of commands."""

import sys
from typing import NoReturn

__all__ = ["main"]

_INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command of `sys.argv`; Ctrl-C ends it without a traceback, also while its modules are read."""
    try:
        from everloop.cli.app import main as run  # noqa: PLC0415  (takes a second, in which people change their mind)

        run()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)

"""The door of every child process: `python -m everloop_trainer.child JOB PARENT_PID [ARGUMENT…]`.

First of all it ties its life to its parent's; only then come the imports, which take a second or more.
"""

import importlib
import sys
from typing import Final

from everloop_trainer.adapters.orphans import end_with_parent

JOBS: Final = ("train", "write_segments", "find_rows")


def main(job: str, parent: str, *arguments: str) -> None:
    """Do one of the jobs in this process."""
    if job not in JOBS:
        raise ValueError(f"{job} is no job; there are {', '.join(JOBS)}")
    end_with_parent(int(parent))
    importlib.import_module(f"everloop_trainer.{job}").main(*arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The door of every child process: `python -m everloop_trainer.child JOB PARENT_PID [ARGUMENT…]`.

First of all it ties its life to its parent's; only then come the imports, which take a second or more.
"""

import importlib
import sys
from importlib.abc import MetaPathFinder
from typing import Final

from everloop_trainer.adapters.orphans import end_with_parent

JOBS: Final = ("train", "write_segments", "find_rows")


class _WithoutPandas(MetaPathFinder):
    """Hides pandas, which nothing here uses.

    LightGBM and Arrow import it wherever it is installed: another second, and sixty megabytes.
    """

    def find_spec(self, fullname: str, *_: object) -> None:
        """As if it were not installed."""
        if fullname == "pandas":
            raise ModuleNotFoundError(name=fullname)


def main(job: str, parent: str, *arguments: str) -> None:
    """Do one of the jobs in this process."""
    if job not in JOBS:
        raise ValueError(f"{job} is no job; there are {', '.join(JOBS)}")
    end_with_parent(int(parent))
    sys.meta_path.insert(0, _WithoutPandas())
    importlib.import_module(f"everloop_trainer.{job}").main(*arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])

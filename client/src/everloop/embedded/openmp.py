"""LightGBM's OpenMP runtime on machines that have none: `python -m everloop.embedded.openmp`.

LightGBM's wheel expects the system's libgomp, which a fresh Debian lacks. scikit-learn's wheel brings it
under a name of its own; a link in the environment's lib folder lets the loader find it there.
"""

import ctypes
import os
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

__all__ = ["link_library", "search_path"]

_NAME = "libgomp.so.1"
_FOLDER = Path(sys.prefix) / "lib"


def link_library() -> None:
    """Link the wheel's library unless the system has its own."""
    bundled = _bundled()
    if not _on_system() and bundled is not None and not (_FOLDER / _NAME).exists():
        (_FOLDER / _NAME).symlink_to(bundled)


def search_path() -> dict[str, str]:
    """What the environment of a process that loads LightGBM must add: nothing where the system has it."""
    if not (_FOLDER / _NAME).exists():
        return {}
    before = os.environ.get("LD_LIBRARY_PATH")
    return {"LD_LIBRARY_PATH": f"{_FOLDER}:{before}" if before else str(_FOLDER)}


def _on_system() -> bool:
    try:
        ctypes.CDLL(_NAME)
    except OSError:
        return False
    return True


def _bundled() -> Path | None:
    try:
        files = distribution("scikit-learn").files or []
    except PackageNotFoundError:
        return None
    found = [file for file in files if file.name.startswith("libgomp") and ".so" in file.name]
    return Path(str(found[0].locate())).resolve() if found else None


if __name__ == "__main__":
    link_library()

# ruff: noqa: INP001, S603  # a script beside the pins; what it runs is written here
"""Make .venv as requirements/*.txt pin it; run by `make setup` with the system's Python and nothing else.

Every downloaded file is held against the hash that its pin names. Our own distributions are installed
editable, without build isolation and without dependencies, so nothing unpinned is fetched for them.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
PINS = ROOT / "requirements"
OLDEST = (3, 11)


def main() -> None:
    """Create the environment, then uv, then everything else with uv."""
    if sys.version_info < OLDEST:
        found = ".".join(map(str, sys.version_info[:3]))
        sys.exit(
            f"Everloop needs Python 3.11 or newer, and {sys.executable} is {found}.\n"
            "Name another one: make PYTHON=python3.12 setup"
        )
    if not PYTHON.exists():
        create()
    uv = install_uv()
    run(
        uv,
        "pip",
        "install",
        "--python",
        PYTHON,
        "--require-hashes",
        "-r",
        PINS / "dev.txt",
        "--build-constraints",
        PINS / "build.txt",
    )
    ours = [part for folder in distributions() for part in ("--editable", folder)]
    run(uv, "pip", "install", "--python", PYTHON, "--no-build-isolation", "--no-deps", *ours)
    run(PYTHON, "-m", "everloop.embedded.openmp")


def distributions() -> "list[Path]":
    """The folders of our own packages, as the workspace lists them."""
    found = [path.parent for path in ROOT.glob("*/pyproject.toml")]
    found += [
        path.parent for folder in ("shared", "services") for path in (ROOT / folder).glob("*/pyproject.toml")
    ]
    return sorted(found)


def create() -> None:
    """By the venv module, or by uv or virtualenv where Debian's python3-venv is not there."""
    ways = [
        [sys.executable, "-m", "venv", VENV],
        ["uv", "venv", "--seed", "--python", sys.executable, VENV],
        [sys.executable, "-m", "virtualenv", VENV],
    ]
    for way in ways:
        shutil.rmtree(VENV, ignore_errors=True)
        if (
            shutil.which(str(way[0]))
            and subprocess.run(way, capture_output=True, check=False).returncode == 0
        ):
            return
    shutil.rmtree(VENV, ignore_errors=True)
    sys.exit(
        "This Python cannot make virtual environments.\n"
        "On Debian: apt-get install python3-venv, then run make again."
    )


def install_uv() -> Path:
    """The pinned uv, by the environment's own pip."""
    run(
        PYTHON,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--require-hashes",
        "-r",
        PINS / "bootstrap.txt",
    )
    return VENV / "bin" / "uv"


def run(*command: object) -> None:
    """Stop at the first failure; the tool has said why."""
    environment = {**os.environ, "VIRTUAL_ENV": str(VENV), "UV_NO_PROGRESS": "1"}
    code = subprocess.run([str(part) for part in command], cwd=ROOT, env=environment, check=False).returncode
    if code:
        sys.exit(
            f"Set-up failed ({' '.join(Path(str(part)).name for part in command[:3])} …, exit code {code}). "
            "Without a network nothing can be installed; with one, run it again."
        )


if __name__ == "__main__":
    main()

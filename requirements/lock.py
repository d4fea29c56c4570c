# ruff: noqa: INP001, S603  # a script beside the pins; what it runs is written here
"""Renew the pins, by `make lock`: one file a distribution, all of one resolution."""

import subprocess
import sys
import tomllib
from pathlib import Path

from bootstrap import PINS, ROOT, VENV, distributions

UV = VENV / "bin" / "uv"
EXTRAS = {"everloop": ["--extra", "embedded"], "everloop-serving": ["--extra", "fast"]}
TOOLS = {"bootstrap": "uv\n", "build": "setuptools\nwheel\nhatchling>=1.27\n"}
"""The installer, and what builds source packages: those of others, and in images our own."""


def main() -> None:
    """The development pins first; every distribution then takes its versions from them."""
    names = {name_of(folder): folder for folder in distributions()}
    development = PINS / "dev.txt"
    compile_pins([ROOT / "pyproject.toml", "--group", "dev", "--group", "examples"], development, names)
    for name, folder in names.items():
        options = [folder / "pyproject.toml", *EXTRAS.get(name, []), "--constraints", development]
        compile_pins(options, PINS / f"{name}.txt", names)
    for name, wanted in TOOLS.items():
        compile_pins(["-"], PINS / f"{name}.txt", names, wanted)


def name_of(folder: Path) -> str:
    """A distribution's name."""
    return str(tomllib.loads((folder / "pyproject.toml").read_text())["project"]["name"])


def compile_pins(
    sources: "list[str | Path]", output: Path, ours: "dict[str, Path]", wanted: str = ""
) -> None:
    """Resolve for every platform and every Python from 3.11 on, with hashes and without places."""
    fixed = [
        "--universal",
        "--python-version",
        "3.11",
        "--generate-hashes",
        "--no-annotate",
        "--no-config",
        "--custom-compile-command",
        "make lock",
        "--output-file",
        output,
    ]
    left_out = [part for name in ours for part in ("--no-emit-package", name)]
    command = [UV, "pip", "compile", "--quiet", *sources, *fixed, *left_out, *sys.argv[1:]]
    subprocess.run(
        [str(part) for part in command],
        input=wanted,
        text=True,
        check=True,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    check(output)


def check(output: Path) -> None:
    """No pin may name a host or a path of the machine that made it."""
    bad = [
        line
        for line in output.read_text().splitlines()
        if "://" in line or str(ROOT) in line or " @ " in line
    ]
    if bad:
        sys.exit(f"{output.name} names a place: {bad[0]}")


if __name__ == "__main__":
    main()

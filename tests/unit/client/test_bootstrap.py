"""Set-up on a bare machine."""

import importlib.util
import stat
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def bootstrap(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "requirements" / "bootstrap.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    return module


def fake_python(folder: Path, exit_code: int) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\nexit {exit_code}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return str(path)


def test_a_python_without_venv_says_what_to_install(bootstrap, monkeypatch, tmp_path):
    """Debian splits venv off: a newcomer must learn the package's name, not see ensurepip's words."""
    monkeypatch.setattr(sys, "executable", fake_python(tmp_path, 1))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="apt-get install python3-venv"):
        bootstrap.create()


def test_an_old_python_says_how_to_name_another(bootstrap, monkeypatch):
    """A syntax error from deep inside would be no help."""
    monkeypatch.setattr(bootstrap, "OLDEST", (4, 0))
    with pytest.raises(SystemExit, match=r"make PYTHON=python3\.12 setup"):
        bootstrap.main()


def test_a_failed_install_says_so_once(bootstrap):
    """pip has printed the reason; what follows must not bury it."""
    with pytest.raises(SystemExit, match="Set-up failed"):
        bootstrap.run(sys.executable, "-c", "raise SystemExit(3)")


def test_every_distribution_has_its_pins(bootstrap):
    """An image without a pin file would be built from whatever is newest that day."""
    names = {line.split('"')[1] for folder in bootstrap.distributions() for line in name_lines(folder)}
    assert len(names) == 10
    assert {name for name in names if not (ROOT / "requirements" / f"{name}.txt").exists()} == set()


def name_lines(folder: Path) -> list[str]:
    lines = (folder / "pyproject.toml").read_text().splitlines()
    return [line for line in lines if line.startswith("name = ")]


@pytest.mark.parametrize("path", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda path: path.stem)
def test_pins_are_exact_hashed_and_name_no_place(path: Path):
    """A pin without a hash, or with a host or path of one machine, is none."""
    entries = path.read_text().replace("\\\n", " ").splitlines()
    wanted = [entry for entry in entries if entry and not entry.startswith("#")]
    assert wanted
    assert [entry for entry in wanted if "==" not in entry or "--hash=sha256:" not in entry] == []
    assert [entry for entry in wanted if "://" in entry or " @ " in entry or "--find-links" in entry] == []

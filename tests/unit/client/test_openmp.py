"""LightGBM's OpenMP runtime on a machine that has none."""

from pathlib import Path

import pytest
from everloop.embedded import openmp


def test_the_wheels_library_is_linked_where_the_loader_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fresh Debian has no libgomp: without the link no model could be trained there."""
    monkeypatch.setattr(openmp, "_FOLDER", tmp_path)
    monkeypatch.setattr(openmp, "_on_system", lambda: False)
    monkeypatch.setattr(openmp, "_bundled", lambda: Path(openmp.__file__))
    monkeypatch.setenv("LD_LIBRARY_PATH", "/elsewhere")
    assert openmp.search_path() == {}
    openmp.link_library()
    openmp.link_library()
    assert (tmp_path / "libgomp.so.1").resolve() == Path(openmp.__file__).resolve()
    assert openmp.search_path() == {"LD_LIBRARY_PATH": f"{tmp_path}:/elsewhere"}


def test_the_systems_library_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two OpenMP runtimes in one process would be one too many."""
    monkeypatch.setattr(openmp, "_FOLDER", tmp_path)
    monkeypatch.setattr(openmp, "_on_system", lambda: True)
    openmp.link_library()
    assert openmp.search_path() == {}

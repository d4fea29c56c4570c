"""Kafka's jars: what is installed is what was pinned, or nothing."""

import hashlib
from pathlib import Path

import pytest
from everloop.embedded import jars
from everloop.embedded.jars import Jar
from everloop.errors import EverloopError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVERLOOP_KAFKA_JARS_DIR", str(tmp_path / "jars"))
    return tmp_path / "jars"


def pinned(content: bytes) -> Jar:
    return Jar("org.example", "one", "1.0", hashlib.sha256(content).hexdigest(), len(content))


def fetching(content: bytes, asked: list[str]):
    def download(missing, scratch):
        for jar in missing:
            asked.append(jar.filename)
            path = scratch / jar.filename
            path.write_bytes(content)
            yield jar, path

    return download


def test_the_list_names_kafka_and_its_version():
    """A jar list that lost its broker would fail at the first start, on the user's machine."""
    names = {jar.filename for jar in jars.pinned_jars()}
    assert f"kafka_2.13-{jars.KAFKA_VERSION}.jar" in names
    assert len(names) == 32


def test_a_jar_with_another_hash_is_not_installed(folder, monkeypatch):
    """What a broken proxy or a hostile mirror serves must not run."""
    monkeypatch.setattr(jars, "pinned_jars", lambda: [pinned(b"good")])
    monkeypatch.setattr(jars, "_download", fetching(b"evil", []))
    with pytest.raises(EverloopError, match=r"org\.example:one:1\.0 has SHA-256 .* is pinned"):
        jars.ensure_jars()
    assert not (folder / "one-1.0.jar").exists()


def test_a_damaged_jar_is_fetched_again_and_an_intact_one_is_not(folder, monkeypatch):
    """A file that a full disk cut short would otherwise stay for ever."""
    asked: list[str] = []
    monkeypatch.setattr(jars, "pinned_jars", lambda: [pinned(b"good")])
    monkeypatch.setattr(jars, "_download", fetching(b"good", asked))
    folder.mkdir()
    (folder / "one-1.0.jar").write_bytes(b"goo!")
    assert jars.ensure_jars()[0].read_bytes() == b"good"
    jars.ensure_jars()
    assert asked == ["one-1.0.jar"]


def test_without_a_network_the_error_says_what_to_do(folder, monkeypatch):
    """The first `everloop up` on a train must name the ways out, not show a connection's traceback."""

    def away(*_):
        raise ConnectionError("name resolution failed")

    monkeypatch.setattr(jars, "_download_by_jgo", away)
    monkeypatch.setattr(jars.shutil, "which", lambda _: None)
    with pytest.raises(EverloopError) as caught:
        jars.ensure_jars()
    assert "name resolution failed" in caught.value.message
    assert "EVERLOOP_MAVEN_REPOSITORY" in caught.value.mend


def test_progress_reaches_the_total(folder, monkeypatch):
    """A progress bar that never fills looks like a hang."""
    monkeypatch.setattr(jars, "pinned_jars", lambda: [pinned(b"good")])
    monkeypatch.setattr(jars, "_download", fetching(b"good", []))
    seen = []
    jars.ensure_jars(lambda *progress: seen.append(progress))
    assert seen == [("one-1.0.jar", 4, 4)]

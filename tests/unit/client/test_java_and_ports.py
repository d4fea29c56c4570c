"""The JVM that is chosen, and ports that are taken."""

import os
import socket
from pathlib import Path

import pytest
from everloop.embedded.java import Java, find_java
from everloop.embedded.ports import free_port, require_free
from everloop.errors import EverloopError


def fake_java(folder: Path, version: str) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "release").write_text(f'JAVA_VERSION="{version}"\n')
    return folder / "bin" / "java"


def test_the_chosen_java_wins(tmp_path, monkeypatch):
    """Someone who names a Java, to debug or to patch it, must get that one."""
    monkeypatch.setenv("EVERLOOP_JAVA", str(fake_java(tmp_path, "21.0.4")))
    assert find_java() == Java(tmp_path / "bin" / "java", 21, "21.0.4")


def test_an_old_java_is_refused_by_version(tmp_path, monkeypatch):
    """Kafka on Java 11 dies with a class-file error that nobody can read."""
    monkeypatch.setenv("EVERLOOP_JAVA", str(fake_java(tmp_path, "11.0.2")))
    with pytest.raises(EverloopError, match=r"No Java ≥17 found; tried: .*11\.0\.2"):
        find_java()


@pytest.mark.parametrize(("release", "flag"), [(25, "-XX:AOTCache="), (17, "-XX:SharedArchiveFile=")])
def test_the_class_cache_is_named_as_the_release_knows_it(release, flag):
    """An unknown flag stops the JVM at once."""
    assert Java(Path("java"), release, "x").use_classes(Path("c")).startswith(flag)


def test_native_access_is_only_asked_of_a_jvm_that_knows_it():
    """Java 17 would refuse to start."""
    assert not any("native" in flag for flag in Java(Path("java"), 17, "17").flags())
    assert "--enable-native-access=ALL-UNNAMED" in Java(Path("java"), 25, "25").flags()


def test_a_taken_port_names_its_owner_and_the_setting():
    """ "Address already in use" does not say by whom, nor which option helps."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(EverloopError) as caught:
            require_free(port, "Kafka", "--kafka-port")
    assert f"Port {port}, wanted for Kafka, is in use by" in caught.value.message
    assert f"pid {os.getpid()}" in caught.value.message
    assert "--kafka-port" in caught.value.mend


def test_a_free_port_is_free():
    """Tests and second stacks stand on this."""
    require_free(free_port(), "x", "--x")


def test_a_free_port_is_not_taken_by_a_connection_before_its_server_starts():
    """Systems take the ports of outgoing connections from 32768 on (Linux) or 49152 (others)."""
    assert all(1024 < free_port() < 32768 for _ in range(100))


def test_a_free_port_is_given_once():
    """A stack chooses all of its ports before the first of its servers listens."""
    given = [free_port() for _ in range(1000)]
    assert len(set(given)) == len(given)

"""Kafka's jars: fetched once by coordinates, held against pinned SHA-256s, kept in the user's cache."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from everloop.errors import EverloopError

__all__ = ["KAFKA_VERSION", "Jar", "cache_folder", "ensure_jars", "locked_cache", "pinned_jars"]

KAFKA_VERSION = "4.3.1"
Progress = Callable[[str, int, int], None]
"""Called with a jar's name, how many bytes are there, and how many there will be."""
_LIST = f"kafka-{KAFKA_VERSION}.jars"
_CONNECT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Jar:
    """One pinned artifact."""

    group: str
    artifact: str
    version: str
    sha256: str
    size_bytes: int

    @property
    def filename(self) -> str:
        """As the repository names it."""
        return f"{self.artifact}-{self.version}.jar"


def pinned_jars() -> list[Jar]:
    """Read the list that ships with this package: group, artifact, version, SHA-256, bytes."""
    text = (files("everloop.embedded") / _LIST).read_text()
    rows = [line.split() for line in text.splitlines() if line]
    return [
        Jar(group, artifact, version, sha256, int(size)) for group, artifact, version, sha256, size in rows
    ]


def cache_folder() -> Path:
    """$EVERLOOP_KAFKA_JARS_DIR, or kafka-<version> in the user's cache."""
    chosen = os.environ.get("EVERLOOP_KAFKA_JARS_DIR")
    if chosen:
        return Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "everloop" / f"kafka-{KAFKA_VERSION}"


def ensure_jars(progress: Progress | None = None) -> list[Path]:
    """Every jar, intact: what is missing or damaged is fetched. Two processes may ask at once."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with locked_cache():
        missing = [jar for jar in pinned_jars() if not _intact(folder / jar.filename, jar)]
        if missing:
            _fetch(missing, folder, progress or (lambda *_: None))
    return [folder / jar.filename for jar in pinned_jars()]


@contextmanager
def locked_cache() -> Iterator[None]:
    """Hold the cache folder for this process alone."""
    with (cache_folder() / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _intact(path: Path, jar: Jar) -> bool:
    return path.exists() and path.stat().st_size == jar.size_bytes and _sha256(path) == jar.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(missing: list[Jar], folder: Path, progress: Progress) -> None:
    total, there = sum(jar.size_bytes for jar in missing), 0
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
        for jar, found in _download(missing, Path(scratch)):
            _verify(found, jar)
            found.replace(folder / jar.filename)
            there += jar.size_bytes
            progress(jar.filename, there, total)


def _verify(found: Path, jar: Jar) -> None:
    digest = _sha256(found)
    if digest != jar.sha256:
        raise EverloopError(
            f"{jar.group}:{jar.artifact}:{jar.version} has SHA-256 {digest}, but {jar.sha256} is pinned.",
            "Nothing was installed. Look at what stands between you and the Maven repository (a proxy, a "
            "mirror), and try again.",
        )


def _download(missing: list[Jar], scratch: Path) -> Iterator[tuple[Jar, Path]]:
    try:
        yield from _download_by_jgo(missing, scratch)
    except (ImportError, OSError, RuntimeError) as error:  # requests' errors are OSErrors
        if not shutil.which("mvn"):
            raise _unreachable(error) from error
        yield from _download_by_maven(missing, scratch)


def _download_by_jgo(missing: list[Jar], scratch: Path) -> Iterator[tuple[Jar, Path]]:
    from jgo.maven import MavenContext  # noqa: PLC0415  # an optional dependency

    mirror = os.environ.get("EVERLOOP_MAVEN_REPOSITORY")
    context = MavenContext(
        repo_cache=scratch, remote_repos={"configured": mirror} if mirror else None, timeout=_CONNECT_SECONDS
    )
    for jar in missing:
        yield jar, context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()


def _download_by_maven(missing: list[Jar], scratch: Path) -> Iterator[tuple[Jar, Path]]:
    (scratch / "pom.xml").write_text(_pom(missing))
    output = scratch / "jars"
    command = ["mvn", "-q", "-B", "-f", str(scratch / "pom.xml"), "dependency:copy-dependencies"]
    options = ["-DexcludeTransitive=true", f"-DoutputDirectory={output}"]
    options.append(f"-Dmaven.repo.local={scratch / 'repository'}")
    try:
        subprocess.run([*command, *options], check=True, capture_output=True, text=True, timeout=600)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        raise _unreachable(error) from error
    yield from ((jar, output / jar.filename) for jar in missing if (output / jar.filename).exists())


def _pom(jars: list[Jar]) -> str:
    dependencies = "".join(
        f"<dependency><groupId>{jar.group}</groupId><artifactId>{jar.artifact}</artifactId>"
        f"<version>{jar.version}</version></dependency>"
        for jar in jars
    )
    return (
        "<project><modelVersion>4.0.0</modelVersion><groupId>io.everloop</groupId><artifactId>jars</artifactId>"
        f"<version>1</version><dependencies>{dependencies}</dependencies></project>"
    )


def _unreachable(error: Exception) -> EverloopError:
    return EverloopError(
        f"Kafka {KAFKA_VERSION}'s jars could not be fetched from the Maven repository: {str(error)[:300]}",
        "Go on line and try again, name a mirror with EVERLOOP_MAVEN_REPOSITORY, or name a folder that holds "
        f"the jars of {_LIST} with EVERLOOP_KAFKA_JARS_DIR.",
    )

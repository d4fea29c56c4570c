"""`everloop doctor`: what is wrong with this machine or this stack, and how to mend it."""

import asyncio
import dataclasses
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import typer
from aiokafka.errors import KafkaError
from everloop_kernel.admin import topic_drift
from everloop_kernel.settings import KafkaSettings, PlatformSettings
from everloop_schemas.topics import pipeline_topics, platform_topics

from everloop.addresses import Addresses, find_addresses
from everloop.cli.options import DEFAULT_DATA_DIR, DataDir, Json
from everloop.cli.output import bytes_text, console, print_json
from everloop.client import Client
from everloop.embedded.jars import cache_folder, pinned_jars
from everloop.embedded.java import find_java
from everloop.embedded.ports import owner, require_free
from everloop.errors import EverloopError
from everloop.stack import SERVICES, StackSettings
from everloop.stack.folder import DataFolder
from everloop.stack.settings import setting_of

__all__ = ["add_to"]

_LEAST_DISK_BYTES = 2 * 2**30
_LEAST_MEMORY_BYTES = 1536 * 2**20


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    found: str
    mend: str = ""


def _good(name: str, found: str) -> Check:
    return Check(name, ok=True, found=found)


def _bad(name: str, found: str, mend: str) -> Check:
    return Check(name, ok=False, found=found, mend=mend)


def add_to(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(epilog="Example: everloop doctor --json")(doctor)


def doctor(data_dir: DataDir = DEFAULT_DATA_DIR, *, as_json: Json = False) -> None:
    """Look at versions, disk, ports, services, topics and keys; exit 1 if something needs mending."""
    checks = [*_machine(data_dir), *_stack(data_dir)]
    if as_json:
        print_json([dataclasses.asdict(check) for check in checks])
    else:
        for check in checks:
            console.print(
                f"{'[green]ok[/green]   ' if check.ok else '[red]mend[/red] '}{check.name}: {check.found}"
            )
            if not check.ok:
                console.print(f"       {check.mend}", markup=False)
    bad = sum(not check.ok for check in checks)
    if bad:
        raise EverloopError(f"{bad} of {len(checks)} checks need mending.")


def _machine(data_dir: Path) -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Check("python", sys.version_info >= (3, 11), version, "Install Python 3.11 or newer.")
    yield _tried("java", _java)
    missing = [jar.filename for jar in pinned_jars() if not (cache_folder() / jar.filename).exists()]
    where = f"{len(pinned_jars()) - len(missing)} of {len(pinned_jars())} jars in {cache_folder()}"
    yield Check("kafka", not missing, where, "`everloop up` fetches them; that needs a network once.")
    yield _disk(data_dir)
    memory = psutil.virtual_memory().available
    yield Check(
        "memory",
        memory >= _LEAST_MEMORY_BYTES,
        f"{bytes_text(memory)} free",
        "The stack takes up to 1.5 GiB.",
    )
    yield from _tokens()


def _java() -> str:
    java = find_java()
    return f"{java.version} at {java.command}"


def _disk(data_dir: Path) -> Check:
    there = next(folder for folder in (data_dir.absolute(), *data_dir.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if not os.access(there, os.W_OK):
        return _bad("data folder", f"{there} may not be written to", "Choose another --data-dir.")
    found = f"{data_dir.absolute()}, {bytes_text(free)} free"
    return Check("data folder", free >= _LEAST_DISK_BYTES, found, "Free 2 GiB, or choose another --data-dir.")


def _tokens() -> Iterator[Check]:
    file = PlatformSettings().tokens_file
    if file is None:
        return
    if not file.exists():
        yield _bad("tokens", f"{file} is not there", "Make one: everloop token create NAME --role ROLE")
        return
    private = not stat.S_IMODE(file.stat().st_mode) & 0o077
    yield Check("tokens", private, f"{file}", f"Others may read it: chmod 600 {file}")


def _stack(data_dir: Path) -> Iterator[Check]:
    addresses = find_addresses(data_dir)
    if DataFolder(data_dir).read() is None:
        yield from _ports()
    with Client(addresses) as client:
        for spec in SERVICES:
            reason = client.why_not_ready(spec.name)
            found = addresses.of(spec.name) if reason is None else reason
            yield Check(
                spec.name, reason is None, found, f"See its log in {data_dir / 'logs'}, or start: everloop up"
            )
        yield from _topics(addresses, client)
        yield _tried("keys", lambda: _keys(addresses, data_dir))


def _ports() -> Iterator[Check]:
    """Only asked when nothing of ours runs: then every port must be free, or held by a service elsewhere."""
    for name, port in dataclasses.asdict(StackSettings().ports()).items():
        try:
            require_free(port, name, setting_of(name))
        except EverloopError as error:
            yield _bad(f"port {port} ({name})", f"in use by {owner(port)}", error.mend)


def _topics(addresses: Addresses, client: Client) -> Iterator[Check]:
    wanted = dict(platform_topics())
    try:
        for one in client.pipelines():
            wanted |= pipeline_topics(one["pipeline"], one["partitions"])
    except EverloopError:
        pass  # the registry's own check says so already
    try:
        drifts = asyncio.run(topic_drift(KafkaSettings(bootstrap_servers=addresses.kafka), wanted))
    except (KafkaError, OSError) as error:
        found = f"Kafka at {addresses.kafka} does not answer ({type(error).__name__})"
        yield _bad("topics", found, "everloop up")
        return
    for drift in drifts:
        found = (
            "is missing"
            if drift.actual is None
            else f"{drift.setting} is {drift.actual}, its file says {drift.wanted}"
        )
        yield _bad(f"topic {drift.topic}", found, _mend(drift.actual, drift.setting))
    if not drifts:
        yield _good("topics", f"{len(wanted)} as their files say")


def _mend(actual: str | None, setting: str) -> str:
    if actual is None:
        return "everloop topics create"
    if setting == "partitions":
        return "A partition count cannot be taken back: move the data to a new pipeline."
    return f"Set {setting} back with Kafka's own tools, or change the topic's file if it is meant."


def _keys(addresses: Addresses, data_dir: Path) -> str:
    """Raise unless serving's folder of trusted keys has every key that the registry signs with."""
    with httpx.Client(timeout=3) as http:
        keys = http.get(f"{addresses.registry}/v1/keys").raise_for_status().json()["keys"]
    folder = data_dir / "keys"
    missing = [key["key_id"] for key in keys if not (folder / f"{key['key_id']}.pub").exists()]
    if missing:
        raise EverloopError(
            f"{folder} lacks {', '.join(missing)}", f"Copy the registry's public keys to {folder}."
        )
    return f"{len(keys)} signing keys, trusted"


def _tried(name: str, look: Callable[[], str]) -> Check:
    try:
        return _good(name, look())
    except EverloopError as error:
        return _bad(name, error.message, error.mend)
    except (httpx.HTTPError, OSError) as error:
        return _bad(name, f"{type(error).__name__}: {error}", "everloop up")

"""What each further pipeline costs an idle install, and how soon it works.

    python bench/pipelines.py [--pipelines 100] [--commands 10] [--idle-seconds 60] [--folder F]

The whole embedded stack, its services as processes. A process's memory is its PSS. A pipeline is 1 to 3
partitions with windowed features, and one observation of it is computed before memory is measured, so that
whatever opens at a first record has been opened. A new pipeline works once the vector of an observation
that was published right after `apply` can be read (read_committed; the reader is opened
anew for each look, some 50 ms).
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import rig
from everloop.client import Client
from everloop.errors import EverloopError
from everloop.stack import Ports, Stack
from everloop_kernel.settings import KafkaSettings

SERVERS = ("kafka", "postgres")
QUIET_SECONDS = 45.0
"""Longer than an idle lane of a stream processor keeps its producer."""
PATIENCE_SECONDS = 120.0
KEPT_FROM = 100
"""Pipelines from which on the result is kept."""
MEMORY_GOAL_MB = 1.0
APPLY_GOAL_SECONDS = 2.0
PIPELINE = """
pipeline: {name}
partition_by: [site]
partitions: {partitions}
observation:
  event_time: at
  fields:
    site: {{type: category}}
    pressure: {{type: number}}
    heat: {{type: number}}
label:
  type: binary
  fields: {{hours_left: {{type: number}}}}
  value: {{fails: hours_left < 24}}
  expected_after: 1h
features:
  pressure: pressure
  heat_over_pressure: heat / pressure
  heat_mean_6h: mean(heat, window='6h', by=[site])
  readings_1d: count(window='1d', by=[site])
"""


@dataclass(frozen=True)
class Install:
    """A running stack with its client."""

    stack: Stack
    client: Client

    @property
    def kafka(self) -> KafkaSettings:
        return KafkaSettings(bootstrap_servers=self.stack.addresses.kafka)

    def memory_mb(self) -> dict[str, float]:
        """By process, its PSS."""
        return {name: used.memory_bytes / 1e6 for name, used in self.stack.services.items()}

    def apply(self, number: int) -> float:
        """Seconds of one call of the client."""
        began = time.monotonic()
        self.client.apply(text_of(number))
        return time.monotonic() - began

    def command(self, number: int, folder: Path) -> float:
        """Seconds of one `everloop apply`, its interpreter's start among them."""
        file = folder / f"{name_of(number)}.yaml"
        file.write_text(text_of(number))
        began = time.monotonic()
        everloop(folder, "apply", str(file), "--data-dir", str(folder))
        return time.monotonic() - began

    def observe(self, number: int) -> None:
        """Publish one observation."""
        row = {"id": "1", "at": "2026-01-01T00:00:00Z", "site": "north", "pressure": 5, "heat": 60}
        result = self.client.publish(name_of(number), "observations", [row])
        if result.accepted != 1:
            raise SystemExit(f"{name_of(number)} refuses its observation: {result.refused}")

    async def vectors(self, number: int) -> int:
        """How many vectors can be read."""
        topic = f"feature-vector-computed-v1.{name_of(number)}"
        return await rig.count(self.kafka, topic, partitions_of(number))

    async def until_computed(self, number: int) -> None:
        """Return once the observation's vector can be read."""
        limit = time.monotonic() + PATIENCE_SECONDS
        while not await self.vectors(number):
            if time.monotonic() > limit:
                raise SystemExit(f"{name_of(number)} has no vector after {PATIENCE_SECONDS:.0f} s")
            await asyncio.sleep(0.05)

    async def until_idle(self) -> None:
        """No lag, and then the time in which idle parts close."""
        while await self.stack.lag():  # noqa: ASYNC110  (other processes work it off)
            await asyncio.sleep(1)
        await asyncio.sleep(QUIET_SECONDS)

    async def idle_cpu_percent(self, seconds: float) -> dict[str, float]:
        """By process, of one core."""
        before, began = cpu_of(self.stack), time.monotonic()
        await asyncio.sleep(seconds)
        took = time.monotonic() - began
        return {name: 100 * (used - before[name]) / took for name, used in cpu_of(self.stack).items()}


def everloop(folder: Path, *arguments: str) -> None:
    """Run the command as its user does: with its modules compiled by an earlier run."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(
        [Path(sys.executable).with_name("everloop"), *arguments],
        env={**kept, "PYTHONPYCACHEPREFIX": str(folder / "compiled")},
        stdout=subprocess.DEVNULL,
        check=True,
    )


def ended_cpu_seconds() -> float:
    """Processor time of the children that have ended; the stack's run on."""
    used = os.times()
    return used.children_user + used.children_system


def name_of(number: int) -> str:
    return f"pump-{number}"


def partitions_of(number: int) -> int:
    return 1 + number % 3


def text_of(number: int) -> str:
    return PIPELINE.format(name=name_of(number), partitions=partitions_of(number))


def cpu_of(stack: Stack) -> dict[str, float]:
    return {name: used.cpu_seconds for name, used in stack.services.items()}


async def first_vector(install: Install, number: int) -> float:
    """Seconds from a new pipeline's `apply` having returned until its first vector is readable."""
    install.apply(number)
    began = time.monotonic()
    install.observe(number)
    await install.until_computed(number)
    return time.monotonic() - began


def spread(name: str, seconds: Sequence[float], goal: float | None = None) -> list[dict]:
    """Least, median, p95 and most; a goal is of the two in the middle."""
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    return [
        rig.figure(f"{name}: min", ordered[0], "s", digits=2),
        rig.figure(f"{name}: median", median(ordered), "s", goal=goal, at_most=True, digits=2),
        rig.figure(f"{name}: p95", p95, "s", goal=goal, at_most=True, digits=2),
        rig.figure(f"{name}: max", ordered[-1], "s", digits=2),
    ]


def memory_figures(before: Mapping[str, float], after: Mapping[str, float], added: int) -> list[dict]:
    """A further pipeline's part of each process; the goal is the services' only."""
    figures = []
    for name, first in before.items():
        goal = None if name in SERVERS else MEMORY_GOAL_MB
        each = (after[name] - first) / added
        figures += [
            rig.figure(f"{name}: PSS with 1 pipeline", first, "MB", digits=1),
            rig.figure(f"{name}: PSS with {added + 1} pipelines", after[name], "MB", digits=1),
            rig.figure(f"{name}: PSS a further pipeline", each, "MB", goal=goal, at_most=True, digits=3),
        ]
    return figures


def cpu_figures(cpu: Mapping[str, float], pipelines: int) -> list[dict]:
    """Of one core: each process, and all of them."""
    unit, what = "% of a core", f"with {pipelines} pipeline{'s' if pipelines > 1 else ''}, idle"
    each = [rig.figure(f"{name}: CPU {what}", used, unit, digits=1) for name, used in cpu.items()]
    return [*each, rig.figure(f"the whole stack: CPU {what}", sum(cpu.values()), unit, digits=1)]


async def run(install: Install, folder: Path, asked: argparse.Namespace) -> list[dict]:
    """One pipeline, then many, then newcomers."""
    count = asked.pipelines
    by_call, by_command = range(2, count - asked.commands + 1), range(count - asked.commands + 1, count + 1)
    await settle(install, range(1, 2), install.apply)
    await install.until_idle()
    alone, alone_cpu = install.memory_mb(), await install.idle_cpu_percent(asked.idle_seconds)
    calls = await settle(install, by_call, install.apply)
    everloop(folder, "apply", "--help")
    ended_before = ended_cpu_seconds()
    runs = await settle(install, by_command, lambda number: install.command(number, folder))
    command_cpu = (ended_cpu_seconds() - ended_before) / len(runs)
    await install.until_idle()
    many, many_cpu = install.memory_mb(), await install.idle_cpu_percent(asked.idle_seconds)
    waits = [await first_vector(install, count + more) for more in range(1, asked.newcomers + 1)]
    restarts = sum(used.restarts for used in install.stack.services.values())
    return [
        *memory_figures(alone, many, count - 1),
        *spread("apply by the client", calls, APPLY_GOAL_SECONDS),
        *spread("apply by the command", runs, APPLY_GOAL_SECONDS),
        rig.figure("apply by the command: CPU of the command itself, mean", command_cpu, "s", digits=2),
        *cpu_figures(alone_cpu, 1),
        *cpu_figures(many_cpu, count),
        *spread(f"pipeline {count + 1} and on, from the end of apply to its first vector", waits),
        rig.figure("processes that ended and started again", restarts, "restarts", goal=0, at_most=True),
    ]


async def settle(install: Install, numbers: range, apply: Callable[[int], float]) -> list[float]:
    """Apply pipelines and let each compute a vector; the seconds of each `apply`."""
    seconds = []
    for number in numbers:
        seconds.append(apply(number))
        install.observe(number)
        print(f"{name_of(number)}: applied in {seconds[-1]:.2f} s", flush=True)
    for number in numbers:
        await install.until_computed(number)
    return seconds


def tell(name: str, what: str) -> None:
    print(f"{name}: {what}", flush=True)


async def main(asked: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = asked.folder or Path(name)
        async with Stack(folder, ports=Ports.free(), fsync=False, tell=tell) as stack:
            with Client(stack.addresses) as client:
                try:
                    figures = await run(Install(stack, client), folder, asked)
                except EverloopError as error:
                    raise SystemExit(str(error)) from error
    rig.show(figures)
    if asked.pipelines >= KEPT_FROM:
        rig.keep("pipelines", figures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--pipelines", type=int, default=100)
    parser.add_argument(
        "--commands", type=int, default=10, help="how many of them are applied by the command"
    )
    parser.add_argument("--newcomers", type=int, default=5, help="how many come after all are idle")
    parser.add_argument("--idle-seconds", type=float, default=60)
    parser.add_argument("--folder", type=Path, help="an empty one, in which data and logs stay")
    asyncio.run(main(parser.parse_args()))

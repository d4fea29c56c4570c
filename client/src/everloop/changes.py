"""What applying a file would change, before it is applied."""

from dataclasses import dataclass
from typing import Literal

from everloop_kernel.settings import KafkaSettings
from everloop_schemas import canonical
from everloop_schemas.pipeline import Pipeline, to_definition

from everloop.client import Client
from everloop.history.log import run
from everloop.replays import ReplayCost, replay_cost

__all__ = ["Change", "plan_apply"]

_MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True)
class Change:
    """A file against the pipeline's current version; a new version replays the log."""

    pipeline: str
    outcome: Literal["created", "changed", "unchanged"]
    version: int
    replay: ReplayCost | None

    def __str__(self) -> str:
        if self.outcome == "unchanged":
            return f"{self.pipeline} would be unchanged: version {self.version}."
        if self.replay is None:
            return f"{self.pipeline} would be created: version {self.version}; it has no log to replay."
        cost = self.replay
        size = f"at most {cost.rows} rows, {cost.bytes / _MEBIBYTE:.1f} MiB"
        return (
            f"{self.pipeline} would have version {self.version}. Its features replay the log beside live "
            f"records: {size}, about {cost.seconds:.0f} s with {cost.share:.0%} of feature's time."
        )


def plan_apply(client: Client, pipeline: Pipeline) -> Change:
    """Compare with what the registry has, and look at the log. Raises EverloopError."""
    name = pipeline.pipeline
    if name not in {one["pipeline"] for one in client.pipelines()}:
        return Change(name, "created", 1, None)
    current = client.pipeline(name)
    if canonical.dumps(current["definition"]) == canonical.dumps(to_definition(pipeline)):
        return Change(name, "unchanged", current["version"], None)
    addresses = client.addresses
    cost = run(replay_cost(KafkaSettings(bootstrap_servers=addresses.kafka), name, addresses.feature))
    return Change(name, "changed", current["version"] + 1, cost)

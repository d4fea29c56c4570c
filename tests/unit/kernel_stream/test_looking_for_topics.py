"""Looking for a topic that somebody has told of."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from everloop_kernel.kafka import look_for


@dataclass
class Client:
    """What a consumer asks the broker with."""

    known: set[str]
    renewals: int = 0
    cluster: Any = field(init=False)

    def __post_init__(self) -> None:
        self.cluster = SimpleNamespace(topics=lambda: self.known)

    def force_metadata_update(self) -> None:
        self.renewals += 1


def test_an_unknown_topic_is_asked_for_at_once() -> None:
    """A new pipeline would wait until metadata is renewed by itself."""
    client = Client({"log.pumps"})
    assert look_for(SimpleNamespace(_client=client), "log.fans")
    assert client.renewals == 1


def test_a_known_topic_costs_nothing() -> None:
    """A service that starts hears of every pipeline: a question for each would keep the broker busy."""
    client = Client({"log.pumps"})
    assert not look_for(SimpleNamespace(_client=client), "log.pumps")
    assert client.renewals == 0

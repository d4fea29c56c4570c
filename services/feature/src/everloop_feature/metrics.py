"""Every metric of this service, with its kind and meaning."""

from typing import Final

from prometheus_client import Counter, Gauge

__all__ = ["REPLAY_POSITION", "REPLAY_TARGET", "STATE_KEYS", "VECTORS"]

VECTORS: Final = Counter("everloop_feature_vectors_total", "Vectors computed and committed", ["pipeline"])
STATE_KEYS: Final = Gauge(
    "everloop_feature_state_keys", "Keys for which windowed state is held", ["pipeline", "partition"]
)
REPLAY_POSITION: Final = Gauge(
    "everloop_feature_replay_position",
    "Log offset up to which the newest pipeline version has been computed",
    ["pipeline", "partition"],
)
REPLAY_TARGET: Final = Gauge(
    "everloop_feature_replay_target",
    "Log offset up to which any version has been computed: above the position, a replay is under way",
    ["pipeline", "partition"],
)

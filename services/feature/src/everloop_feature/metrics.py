"""Every metric of this service, with its kind and meaning."""

from typing import Final

from prometheus_client import Counter, Gauge

__all__ = [
    "CUT",
    "REPLAY_POSITION",
    "REPLAY_RATE",
    "REPLAY_SECONDS_LEFT",
    "REPLAY_SHARE",
    "REPLAY_TARGET",
    "STATE_KEYS",
    "VECTORS",
]

VECTORS: Final = Counter("everloop_feature_vectors_total", "Vectors computed and committed", ["pipeline"])
STATE_KEYS: Final = Gauge(
    "everloop_feature_state_keys", "Keys for which windowed state is held", ["pipeline", "partition"]
)
REPLAY_POSITION: Final = Gauge(
    "everloop_feature_replay_position",
    "Log offset up to which every wanted pipeline version has been computed",
    ["pipeline", "partition"],
)
REPLAY_TARGET: Final = Gauge(
    "everloop_feature_replay_target",
    "Log offset up to which live records have been computed: above the position, a replay is under way",
    ["pipeline", "partition"],
)
REPLAY_RATE: Final = Gauge(
    "everloop_feature_replay_rows_per_second",
    "Rows a second that the replay under way has done in the last minute; 0 without one",
    ["pipeline", "partition"],
)
REPLAY_SECONDS_LEFT: Final = Gauge(
    "everloop_feature_replay_seconds_left",
    "Seconds until the replay under way catches up with live records, at its pace; infinite if it does not",
    ["pipeline", "partition"],
)
REPLAY_SHARE: Final = Gauge(
    "everloop_feature_replay_share", "Part of this process's time that replays may take (0…1)"
)
CUT: Final = Gauge(
    "everloop_feature_cut",
    "Log offset from which this process has let the version's vectors take over from the version before it",
    ["pipeline", "partition", "version"],
)

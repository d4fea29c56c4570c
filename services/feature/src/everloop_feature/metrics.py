"""Every metric of this service, with its kind and meaning."""

from typing import Final

from prometheus_client import Counter, Gauge

__all__ = ["STATE_KEYS", "VECTORS"]

VECTORS: Final = Counter("everloop_feature_vectors_total", "Vectors computed and committed", ["pipeline"])
STATE_KEYS: Final = Gauge(
    "everloop_feature_state_keys", "Keys for which windowed state is held", ["pipeline", "partition"]
)

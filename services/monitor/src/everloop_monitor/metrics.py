"""Every metric of the monitor, with its kind and meaning."""

from typing import Final

from prometheus_client import Counter, Gauge

__all__ = ["DRIFT_DETECTED", "DRIFT_STATISTIC", "JOINED", "LOSS", "PREDICTIONS"]

PREDICTIONS: Final = Counter(
    "everloop_monitored_predictions_total", "Predictions kept to be joined", ["pipeline"]
)
JOINED: Final = Counter(
    "everloop_joined_predictions_total", "Predictions whose outcome became known", ["pipeline"]
)
LOSS: Final = Gauge(
    "everloop_model_daily_loss",
    "Mean loss of the champion on the newest complete day: log loss, or mean absolute error",
    ["pipeline", "model_version"],
)
DRIFT_STATISTIC: Final = Gauge(
    "everloop_drift_statistic",
    "Shiryaev-Roberts statistic on the newest complete day; drift is detected at its threshold",
    ["pipeline", "model_version", "kind"],
)
DRIFT_DETECTED: Final = Counter("everloop_drift_detected_total", "Alarms raised", ["pipeline", "kind"])

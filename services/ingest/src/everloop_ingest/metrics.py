"""Ingest's metrics, with kind and meaning."""

from typing import Final

from prometheus_client import Counter, Gauge

__all__ = ["BLOCKED", "BROKEN_GATES", "HTTP_RECORDS", "KNOWN_AT", "RECORDS", "WARNINGS"]

RECORDS: Final = Counter(
    "everloop_ingest_records_total",
    "Inbound records by what became of them (accepted; revised: a label accepted in place of an earlier one; "
    "duplicate, quarantined, forwarded); detail is the kind, or the rule that was broken",
    ["pipeline", "outcome", "detail"],
)
HTTP_RECORDS: Final = Counter(
    "everloop_ingest_http_records_total",
    "Records received over HTTP by what was answered (accepted, refused)",
    ["pipeline", "outcome"],
)
WARNINGS: Final = Counter(
    "everloop_ingest_warnings_total",
    "Accepted records that break a rule that only warns; the field is empty for a rule over several",
    ["pipeline", "field", "rule"],
)
BLOCKED: Final = Gauge(
    "everloop_ingest_quality_blocked",
    "1 while broken data gates keep training from starting on a pipeline's new data",
    ["pipeline"],
)
BROKEN_GATES: Final = Counter(
    "everloop_ingest_quality_broken_gates_total",
    "Gates that a window of data broke, by where they come from (declared, learned) and what follows "
    "(block, warn)",
    ["pipeline", "source", "on_broken"],
)
KNOWN_AT: Final = Gauge(
    "everloop_ingest_known_at_seconds",
    "Pipeline time: the highest known_at of a pipeline's records, in seconds since 1970",
    ["pipeline"],
)

"""Ingest's metrics, with kind and meaning."""

from typing import Final

from prometheus_client import Counter

__all__ = ["HTTP_RECORDS", "RECORDS", "WARNINGS"]

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

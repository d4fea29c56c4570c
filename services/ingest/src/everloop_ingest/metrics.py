"""Ingest's metrics, with kind and meaning."""

from typing import Final

from prometheus_client import Counter

__all__ = ["HTTP_RECORDS", "RECORDS"]

RECORDS: Final = Counter(
    "everloop_ingest_records_total",
    "Inbound records by what became of them (accepted, duplicate, quarantined, forwarded); "
    "detail is the kind, or the rule that was broken",
    ["pipeline", "outcome", "detail"],
)
HTTP_RECORDS: Final = Counter(
    "everloop_ingest_http_records_total",
    "Records received over HTTP by what was answered (accepted, refused)",
    ["pipeline", "outcome"],
)

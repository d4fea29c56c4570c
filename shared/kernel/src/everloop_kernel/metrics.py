"""Every metric of the kernel, with its kind and meaning. Services list their own in a module like this one.

Names are snake_case with base units; labels never hold ids of records. `/metrics` serves all of them.
"""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

__all__ = [
    "BATCH_RECORDS",
    "BATCH_SECONDS",
    "CONSUMER_LAG",
    "HANDLED_RECORDS",
    "HTTP_REQUESTS",
    "HTTP_SECONDS",
    "OUTBOX_LEADER",
    "OUTBOX_OLDEST_SECONDS",
    "OUTBOX_PENDING",
    "OUTBOX_PUBLISHED",
    "REBALANCES",
    "REJECTED_RECORDS",
    "REPLAYED_RECORDS",
    "RETRIED_BATCHES",
]

_RECORD_BUCKETS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4000, 8000)
_SECOND_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

CONSUMER_LAG: Final = Gauge(
    "everloop_consumer_lag_records",
    "Records of an assigned partition that this member has not yet handled",
    ["group", "topic", "partition"],
)
BATCH_RECORDS: Final = Histogram(
    "everloop_batch_records", "Records in one transaction", ["group"], buckets=_RECORD_BUCKETS
)
BATCH_SECONDS: Final = Histogram(
    "everloop_batch_seconds",
    "Seconds from a batch's receipt to its commit",
    ["group"],
    buckets=_SECOND_BUCKETS,
)
HANDLED_RECORDS: Final = Counter(
    "everloop_handled_records_total", "Records whose effect is committed", ["group", "topic"]
)
REPLAYED_RECORDS: Final = Counter(
    "everloop_replayed_records_total",
    "Records handled again, beside live ones, for a new definition; committed",
    ["group", "topic"],
)
REJECTED_RECORDS: Final = Counter(
    "everloop_rejected_records_total", "Records that became dead letters", ["group", "topic", "reason"]
)
RETRIED_BATCHES: Final = Counter(
    "everloop_retried_batches_total", "Batches tried again after a transient failure", ["group", "error"]
)
REBALANCES: Final = Counter(
    "everloop_rebalances_total", "Assignments that this member received from its group", ["group"]
)
OUTBOX_PENDING: Final = Gauge(
    "everloop_outbox_pending", "Events committed to Postgres and not yet published", ["service"]
)
OUTBOX_OLDEST_SECONDS: Final = Gauge(
    "everloop_outbox_oldest_seconds", "Age of the oldest event not yet published", ["service"]
)
OUTBOX_PUBLISHED: Final = Counter(
    "everloop_outbox_published_total", "Events published from the outbox", ["service", "topic"]
)
OUTBOX_LEADER: Final = Gauge(
    "everloop_outbox_leader", "1 while this process publishes the outbox", ["service"]
)
HTTP_REQUESTS: Final = Counter(
    "everloop_http_requests_total", "HTTP requests answered", ["route", "method", "status"]
)
HTTP_SECONDS: Final = Histogram(
    "everloop_http_seconds", "Seconds to answer an HTTP request", ["route"], buckets=_SECOND_BUCKETS
)

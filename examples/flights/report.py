"""The account of one demo: what was sent, decided, answered and found."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from audit import Audit
from everloop_schemas import events
from ledger import Ledger
from watch import Watch

DRIFT_KINDS = {"drift", "performance"}


@dataclass(frozen=True)
class Measured:
    """What only the demo's process knows: clock and memory."""

    seconds: float
    phases: dict[str, float]
    stale_steps: int
    peak_memory_bytes: int
    joined: int
    trace: dict[str, Any]
    cpu_seconds: dict[str, float]


def build(ledger: Ledger, watch: Watch, audit: Audit, measured: Measured) -> dict[str, Any]:
    """The report, ready to be written as JSON."""
    return {
        "counts": counts(ledger, audit, measured.joined),
        "first_failure": ledger.failures[0] if ledger.failures else None,
        "runs": [run(watch, started) for started in watch.of(events.RunStarted)],
        "approvals": [e.model_version for e in watch.of(events.ModelApproved)],
        "rejections": [e.model_version for e in watch.of(events.ModelRejected)],
        "drift": [[e.feature for e in event.evidence] for event in watch.of(events.DriftDetected)],
        "swaps": swaps(watch, ledger),
        "prequential_log_loss": {"rows": ledger.losses.rows, **ledger.losses.means()},
        "trace": measured.trace,
        "seconds": round(measured.seconds, 1),
        "seconds_by_phase": {name: round(seconds, 1) for name, seconds in measured.phases.items()},
        "stale_steps": measured.stale_steps,
        "peak_memory_bytes": measured.peak_memory_bytes,
        "cpu_seconds": measured.cpu_seconds,
    }


def counts(ledger: Ledger, audit: Audit, joined: int) -> dict[str, int]:
    """Records and answers, by where they went."""
    return {
        "sent": len(ledger.observations) + len(ledger.labels) + ledger.repeated,
        "accepted": sum(audit.accepted.values()),
        "quarantined": sum(audit.quarantined.values()),
        "duplicates": ledger.repeated,
        "predicted": len(ledger.answers),
        "joined": joined,
        "requests": ledger.requests,
        "failed_requests": len(ledger.failures),
    }


def run(watch: Watch, started: events.RunStarted) -> dict[str, Any]:
    """One run: why it started, what came of it, and the seconds of each step."""
    trained = next((e for e in watch.of(events.ModelTrained) if e.run_id == started.run_id), None)
    result: dict[str, Any] = {
        "run_id": started.run_id,
        "trigger": started.trigger.kind,
        "reason": started.trigger.reason,
    }
    if trained is None:
        return {**result, "outcome": "failed"}
    loaded = [
        e for e in watch.of(events.ModelLoaded) if e.model_version == trained.model_version and e.loaded
    ]
    seconds = dict(trained.seconds)
    if loaded:
        seconds["trigger_to_swap"] = round(watch.at(loaded[0]) - watch.at(started), 2)
    approved = trained.run_id in {e.run_id for e in watch.of(events.ModelApproved)}
    return {
        **result,
        "outcome": "approved" if approved else "rejected",
        "model_version": trained.model_version,
        "rows": trained.dataset.rows,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
    }


def swaps(watch: Watch, ledger: Ledger) -> dict[str, Any]:
    """Versions that serving put in front of clients, and requests that failed meanwhile."""
    loaded = [e for e in watch.of(events.ModelLoaded) if e.loaded]
    return {"versions": [e.model_version for e in loaded], "request_errors": len(ledger.failures)}


def shortcomings(report: dict[str, Any], problems: Sequence[str], *, whole: bool) -> list[str]:
    """Why the demo must not call itself a success. A short run (`whole` false) need not close every loop."""
    told = list(problems)
    if report["counts"]["failed_requests"]:
        told.append(f"{report['counts']['failed_requests']} requests failed: {report['first_failure']}")
    if not report["approvals"]:
        told.append("no model was approved")
    if not whole:
        return told
    triggers = {run["trigger"] for run in report["runs"]}
    expected = {
        "no run was started by new data": "new-data" in triggers,
        "no run was started by drift or loss": bool(triggers & DRIFT_KINDS),
        "no version was rejected": bool(report["rejections"]),
        "no model was swapped for another": len(set(report["swaps"]["versions"])) > 1,
    }
    return told + [text for text, met in expected.items() if not met]

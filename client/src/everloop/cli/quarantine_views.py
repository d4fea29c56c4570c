"""What `everloop quarantine` prints."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

from everloop_kernel.settings import KafkaSettings

from everloop.cli.kafka_records import readable
from everloop.cli.output import console, print_json, table
from everloop.errors import EverloopError
from everloop.quarantine.entries import Entry, Wanted, open_entries
from everloop.quarantine.outcomes import Outcome
from everloop.quarantine.patches import CannotPatchError, Patch
from everloop.quarantine.resolving import Order, Resolved, mended

__all__ = ["decided", "preview", "reasons", "report", "set_aside_at", "view"]

_SHOWN = 10


def report(
    pipeline: str, order: Order, done: Resolved, outcomes: Mapping[str, Outcome], *, as_json: bool
) -> None:
    """What became of each record; raises EverloopError, and so exit 1, where one is still in quarantine."""
    told = {name: outcomes.get(name, Outcome("waiting")) for name in done.ids}
    counts = Counter(str(outcome.state) for outcome in told.values())
    if as_json:
        records = [{"entry": name, "became": one.state, "detail": one.detail} for name, one in told.items()]
        unfit = [{"entry": name, "became": "not sent", "detail": text} for name, text in done.unfit.items()]
        print_json({"batch": order.batch, "sent": len(done.ids), **counts, "records": [*records, *unfit]})
    else:
        _say(pipeline, counts, told, done)
    if counts["quarantined"] or done.unfit:
        raise EverloopError(
            "Some records are still in quarantine.", f"See: everloop quarantine list {pipeline}"
        )


def _say(pipeline: str, counts: Counter[str], told: Mapping[str, Outcome], done: Resolved) -> None:
    if not done.ids and not done.unfit:
        console.print("There is nothing left to send again.")
        return
    states = {
        "accepted": "accepted",
        "quarantined": "quarantined again",
        "dropped": "dropped: the log holds them already",
        "waiting": f"not through yet: see everloop quarantine list {pipeline}",
    }
    console.print(f"{len(done.ids)} records were sent again.")
    for state, words in states.items():
        if counts[state]:
            console.print(f"  {counts[state]} {words}")
    refused = {name: one.detail for name, one in told.items() if one.state == "quarantined"}
    for name, detail in list({**refused, **done.unfit}.items())[:_SHOWN]:
        console.print(f"  {name}: {detail}", markup=False)


def preview(kafka: KafkaSettings, pipeline: str, wanted: Wanted, order: Order, *, as_json: bool) -> None:
    """What an order would do."""
    records = asyncio.run(_would(kafka, pipeline, wanted, order))
    if as_json:
        print_json(records)
        return
    rows = ((one["entry"], one["kind"], one["id"], one["reasons"][:60], one["data"][:120]) for one in records)
    verb = "sent again" if order.action == "replayed" else "discarded"
    table(("entry", "kind", "id", "reasons", "record"), rows, empty=f"Nothing would be {verb}.")
    if records:
        console.print(f"{len(records)} records would be {verb}; nothing was done.")


async def _would(kafka: KafkaSettings, pipeline: str, wanted: Wanted, order: Order) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async for entry in await open_entries(kafka, pipeline, wanted):
        if order.limit is not None and len(found) >= order.limit:
            break
        found.append({**view(entry), "reasons": reasons(entry), "data": _data(entry, order.patch)})
    return found


def _data(entry: Entry, patch: Patch | None) -> str:
    try:
        return readable(mended(entry, patch)[0])
    except CannotPatchError as error:
        return f"not sent: {error}"


def reasons(entry: Entry) -> str:
    """Every rule that it broke, by field."""
    told = (f"{one.field or 'record'}: {one.rule}" for one in entry.event.violations)
    return "; ".join(told) or entry.event.reason


def set_aside_at(entry: Entry) -> str:
    """When."""
    return entry.event.quarantined_at.strftime("%Y-%m-%d %H:%M:%S")


def decided(entry: Entry) -> str:
    """By whom it was resolved, and why; empty while it waits."""
    found = entry.resolution
    return "" if found is None else f"{found.action} by {found.by}: {found.reason}".removesuffix(": ")


def view(entry: Entry) -> dict[str, Any]:
    """An entry as JSON, without its data."""
    found = entry.resolution
    about = {"entry": entry.id, **entry.event.model_dump(mode="json", exclude={"data_base64", "headers"})}
    return {**about, "resolution": None if found is None else found.model_dump(mode="json")}

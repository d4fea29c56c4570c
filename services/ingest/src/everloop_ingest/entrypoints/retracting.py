"""`DELETE …/observations/{id}?origin=EWR`: the retraction that this is."""

from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from everloop_kernel.http import Problem
from everloop_kernel.http_routes import Call

from everloop_ingest.application.reading import read_data
from everloop_ingest.application.submitting import Sender
from everloop_ingest.domain.contract import Checked, Contract

__all__ = ["retraction_of"]


def retraction_of(contract: Contract, call: Call, sender: Sender, now: datetime) -> bytes:
    """The record of a retraction: the path's id, the query's fields; raises `Problem` 400.

    A query knows text alone. Where the contract does not take the text, the record holds its meaning in JSON:
    `3` is a number, `true` a boolean.
    """
    query = call.request.target.partition(b"?")[2].decode("latin-1")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=100)
    except ValueError as error:
        raise Problem(400, "Bad request", f"The query cannot be read: {error}.") from error
    fields = dict(pairs)
    row_id = {"id": call.parameters["observation"]}
    as_text = msgspec.json.encode({**fields, **row_id})
    read = read_data(
        contract, "retraction", as_text, source=sender.source, now=now, may_replay=sender.may_replay
    )
    if isinstance(read, Checked):
        return as_text
    return msgspec.json.encode({**{name: _meant(text) for name, text in fields.items()}, **row_id})


def _meant(text: str) -> Any:
    """The JSON value that a text spells, if it is no object or array; else the text."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return text
    return text if isinstance(value, dict | list) else value

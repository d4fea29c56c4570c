"""Features as they stand now, read from the state that predictions are made from."""

from collections.abc import Mapping
from typing import Any

from everloop_schemas.events import Value

from everloop_serving.application.loaded_model import LoadedModel

__all__ = ["read_online"]


def read_online(model: LoadedModel, record: Mapping[str, Any], now_us: int) -> dict[str, Value]:
    """The features of the keys in `record` at its event time, or at `now_us` (µs since 1970) without one.

    Other fields that are left out are null. No prediction is made and none is logged.

    Raises:
        InvalidInput: for an unknown or malformed field, or a partition key's field that is not there.
    """
    fields, event_time_us = model.inputs.partial(record, model.key_fields, now_us)
    return dict(zip(model.feature_names, model.vector(fields, event_time_us), strict=True))

"""Where a pipeline stands on its way to a model that answers, and waiting for that."""

import time
from collections.abc import Callable
from typing import Any

from everloop.client import Client
from everloop.errors import EverloopError

__all__ = ["standing", "wait_for_model"]

_POLL_SECONDS = 0.5


def standing(client: Client, pipeline: str) -> str:
    """In words. Raises EverloopError for a pipeline that does not exist."""
    client.pipeline(pipeline)
    training, models = client.training(pipeline), client.models(pipeline)
    if training["active"]:
        return "a run is under way"
    newest = max(models, key=lambda model: int(model["model_version"]), default=None)
    if newest is not None:
        return _of_model(newest)
    newest_run = next(iter(client.runs(pipeline)), None)
    if newest_run is not None and newest_run["state"] == "trained":
        return "a run has ended, and its model is being judged"
    failed = newest_run["failed"] if newest_run is not None else None
    why = f"; the last run failed: {failed['reason']}" if failed else ""
    return f"{training['waiting_for']}{why}"


def wait_for_model(
    client: Client, pipeline: str, version: int | None, seconds: float, tell: Callable[[str], None]
) -> None:
    """Return once serving answers for the pipeline; `tell` hears each step on the way.

    Raises EverloopError when the pipeline does not exist, or after `seconds`.
    """
    limit, told = time.monotonic() + seconds, ""
    while not client.answers(pipeline, version):
        now = standing(client, pipeline)
        if now != told:
            tell(now)
            told = now
        if time.monotonic() > limit:
            raise EverloopError(
                f"No model of {pipeline} answers after {seconds:g} s: {now}",
                "Wait longer with --timeout, or look at `everloop status`.",
            )
        time.sleep(_POLL_SECONDS)


def _of_model(model: dict[str, Any]) -> str:
    failed = [str(gate["reason"]) for gate in model["gates"] if not gate["passed"]]
    why = f" ({'; '.join(failed)})" if failed else ""
    stage = "being loaded" if model["stage"] == "champion" else model["stage"]
    return f"version {model['model_version']} is {stage}{why}"

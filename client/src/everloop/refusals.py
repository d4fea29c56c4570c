"""What a service says when it refuses, as one error for people."""

from typing import Any, Final

import httpx

from everloop.errors import EverloopError

__all__ = ["NO_MODEL", "RefusedError", "body_of", "refused", "why_not"]

Json = dict[str, Any]

_STRANGER: Final = "what answers there is no service of Everloop: its answer is no JSON"

NO_MODEL: Final = frozenset({404, 503})
"""The statuses by which serving says that no model answers for a pipeline, or none yet."""


class RefusedError(EverloopError):
    """A service answered, and refused; `detail` is its own sentence."""

    def __init__(self, message: str, mend: str, *, service: str, status: int, detail: str) -> None:
        super().__init__(message, mend)
        self.service = service
        self.status = status
        self.detail = detail


def body_of(answer: httpx.Response) -> Json:
    """An answer's JSON object; a list stands under `items`; of what is no JSON, `detail` says so."""
    try:
        body = answer.json()
    except ValueError:
        return {"detail": _STRANGER}
    return body if isinstance(body, dict) else {"items": body}


def refused(service: str, status: int, body: Json) -> RefusedError:
    """The error of a refusal: the service, its sentence, every problem with its line, what to do."""
    detail = str(body.get("detail") or body.get("error") or body.get("title") or "")
    problems = body.get("problems", [])
    said = body.get("title") if problems else detail  # the detail repeats the first problem
    lines = [f"{service} refuses ({status}): {said}", *map(_problem_line, problems)]
    return RefusedError(
        "\n".join(lines), str(body.get("mend", "")), service=service, status=status, detail=detail
    )


def why_not(answer: httpx.Response) -> str:
    """What a service that is not ready waits for."""
    body = body_of(answer)
    waiting = [
        f"{one.get('name')}: {one.get('reason')}"
        for one in body.get("components", [])
        if not one.get("ready")
    ]
    return "; ".join(waiting) or str(body.get("detail") or body.get("status") or body)[:300]


def _problem_line(problem: Json) -> str:
    return "  {file}:{line} {field}: {message} [{rule}]; {mend}".format_map(problem)

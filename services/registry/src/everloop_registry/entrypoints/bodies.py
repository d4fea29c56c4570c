"""What callers send: a pipeline file, or a decision with its reason."""

from dataclasses import asdict

import msgspec
from everloop_features import compile as compile_features
from everloop_features import compile_rules
from everloop_features.file_tests import failures, run_tests
from everloop_kernel.http import Problem
from everloop_schemas.pipeline import Pipeline, load, locate
from everloop_schemas.problems import Problem as FileProblem
from starlette.requests import Request

__all__ = ["Decided", "read_pipeline", "read_wish"]

_LONGEST_BODY_BYTES = 1 << 20


class Decided(msgspec.Struct, forbid_unknown_fields=True):
    """A person's decision: on whose behalf, why, and whether failed gates are overruled."""

    reason: str = "no reason given"
    by: str | None = None
    override: bool = False


async def read_pipeline(request: Request) -> Pipeline:
    """The pipeline of the body, its expressions checked and its tests run.

    Raises:
        Problem: 422 with every problem of the file; 413 for a body over 1 MiB.
    """
    name = f"{request.path_params['pipeline']}.yaml"
    text = _text(await _body(request))
    pipeline = load(text, name)
    if isinstance(pipeline, list):
        raise _unusable(pipeline)
    compiled = compile_features(pipeline)
    if isinstance(compiled, list):
        raise _unusable(locate(compiled, text, name))
    if isinstance(broken := compile_rules(pipeline), list):
        raise _unusable(locate(broken, text, name))
    if failed := failures(run_tests(pipeline, compiled)):
        raise _unusable(locate(failed, text, name))
    if pipeline.pipeline != request.path_params["pipeline"]:
        raise Problem(
            422,
            "Another pipeline's file",
            f"The file defines {pipeline.pipeline!r}: put it to /v1/pipelines/{pipeline.pipeline}.",
        )
    return pipeline


async def read_wish(request: Request) -> Decided:
    """The decision of the body; an empty body is a decision without a reason.

    Raises:
        Problem: 422 for anything else.
    """
    body = await _body(request)
    if not body.strip():
        return Decided()
    try:
        decided = msgspec.json.decode(body, type=Decided)
        _check_storable(decided)
    except (msgspec.DecodeError, ValueError) as error:
        example = '{"by": "kim", "reason": "looks right"}'
        raise Problem(
            422, "Unreadable decision", f"{error}. Send a JSON object such as {example}."
        ) from error
    return decided


def _check_storable(decided: Decided) -> None:
    if "\0" in f"{decided.reason}{decided.by}":
        raise ValueError("Texts may not hold the character NUL")


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_BODY_BYTES:
            raise Problem(413, "Body too large", f"Send at most {_LONGEST_BODY_BYTES} bytes.")
    return bytes(body)


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Problem(
            422, "Unreadable file", f"The file is not UTF-8 ({error}). Save it as UTF-8."
        ) from error


def _unusable(problems: list[FileProblem]) -> Problem:
    count = "One problem" if len(problems) == 1 else f"{len(problems)} problems"
    detail = f"{count}; the first: {problems[0]}"
    return Problem(422, "Broken pipeline file", detail, problems=[asdict(problem) for problem in problems])

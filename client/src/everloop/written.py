"""Names: as they are written in URLs and headers, and as a pipeline file has its own."""

from urllib.parse import quote

from everloop_schemas.yaml_lines import read_yaml

from everloop.errors import EverloopError

__all__ = ["header_text", "part", "pipeline_name"]

_PLAIN_IN_HEADERS = "!#$&'()*+,-./:;<=>?@[]^_`{|}~"


def part(name: str) -> str:
    """One part of a path: whatever a name holds, it stays one part.

    Example:
        >>> part("a/../b c")
        'a%2F..%2Fb%20c'
    """
    return quote(name, safe="", errors="replace")


def header_text(text: str) -> str:
    """A CloudEvents attribute as a header has it: percent-encoded where it is not printable ASCII.

    Example:
        >>> header_text("Zürich 2")
        'Z%C3%BCrich%202'
    """
    return quote(text, safe=_PLAIN_IN_HEADERS, errors="replace")


def pipeline_name(text: str) -> str:
    """The name in a pipeline file's text, read as the registry reads it: `yes` is one."""
    document = read_yaml(text)
    if document.problems:
        raise EverloopError(
            f"The pipeline file is no YAML: {document.problems[0]}", "`everloop check` says more."
        )
    name = document.value.get("pipeline") if isinstance(document.value, dict) else None
    if not isinstance(name, str):
        raise EverloopError(
            "The pipeline file has no `pipeline: <name>`.", "Name the pipeline in its first line."
        )
    return name

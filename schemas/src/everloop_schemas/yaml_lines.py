"""YAML as people mean it, with the line of every value.

The core schema of YAML 1.2: `no`, `on` and `yes` are text, `010` is ten, `12:30` is text. Duplicate keys,
aliases, tags and keys that are no text are problems, not surprises.
"""

import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import yaml

from everloop_schemas.problems import Path, Problem, dotted

__all__ = ["Document", "read_yaml"]

MAX_BYTES = 256 * 1024
_PREFIX = "tag:yaml.org,2002:"
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
"""UTF-8 cannot write it, so neither could Kafka's or PostgreSQL's copy of the file."""


class _Loader(yaml.SafeLoader):
    """PyYAML's reader with the scalars of YAML 1.2 instead of 1.1."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own name)


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]{1,18}", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(_PREFIX + _tag, re.compile(f"(?a:{_pattern})\\Z"), list(_first))


@dataclass(slots=True)
class Document:
    """A YAML text, read: its value, each value's line, and what is wrong with it as YAML."""

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    _seen: set[int] = field(default_factory=set)

    def refuse(self, line: int, path: Path, rule: str, message: str, mend: str) -> None:
        """Note a problem at `path`."""
        self.problems.append(Problem("", line, dotted(path), rule, message, mend))


def read_yaml(text: str) -> Document:
    """Read one YAML document; never raises: what is wrong stands in `problems`."""
    document = Document()
    if len(text) > MAX_BYTES:
        document.refuse(1, (), "too-large", f"{len(text)} characters", f"keep it below {MAX_BYTES}")
        return document
    try:
        root = yaml.compose(text, Loader=_Loader)
        document.value = None if root is None else _convert(root, (), document)
    except yaml.YAMLError as error:
        _refuse_syntax(document, error)
    except (RecursionError, ValueError):
        document.refuse(1, (), "yaml-syntax", "it cannot be read as YAML", "nest less deeply")
    return document


def _refuse_syntax(document: Document, error: yaml.YAMLError) -> None:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = mark.line + 1 if mark else 1
    message = " ".join(str(getattr(error, "problem", None) or error).split())[:200]
    document.refuse(line, (), "yaml-syntax", message, "check indentation, quotes and brackets near this line")


def _convert(node: yaml.Node, path: Path, document: Document) -> Any:
    # an alias is the node that it repeats: its own line is that of its key
    line = document.lines.setdefault(path, node.start_mark.line + 1)
    if id(node) in document._seen:  # noqa: SLF001 (its own module's bookkeeping)
        document.refuse(line, path, "alias", "anchors and aliases are not read", "write the value out")
        return None
    document._seen.add(id(node))  # noqa: SLF001
    if isinstance(node, yaml.MappingNode) and node.tag == _PREFIX + "map":
        return _mapping(node, path, document)
    if isinstance(node, yaml.SequenceNode) and node.tag == _PREFIX + "seq":
        return [_convert(item, (*path, position), document) for position, item in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode) and _HALF_CHARACTER.search(node.value):
        document.refuse(line, path, "text", "half a surrogate pair is no text", "write the whole character")
        return None
    if isinstance(node, yaml.ScalarNode) and node.tag.removeprefix(_PREFIX) in _SCALARS:
        return _SCALARS[node.tag.removeprefix(_PREFIX)](node.value)
    document.refuse(line, path, "tag", f"the tag {node.tag[:60]} is not read", "write the plain value")
    return None


def _mapping(node: yaml.MappingNode, path: Path, document: Document) -> dict[Hashable, Any]:
    result: dict[Hashable, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = key_node.value
        if not _is_text(key_node):
            document.refuse(
                line, path, "key", f"a key must be text, not {str(key)[:40]!r}", "put quotes around it"
            )
        elif key in result:
            first = document.lines[(*path, key)]
            message = f"the key stands there twice, first on line {first}"
            document.refuse(line, (*path, key), "duplicate-key", message, "keep one of them")
        else:
            document.lines[(*path, key)] = line
            result[key] = _convert(value_node, (*path, key), document)
    return result


def _is_text(node: yaml.Node) -> bool:
    is_string = isinstance(node, yaml.ScalarNode) and node.tag == _PREFIX + "str"
    return is_string and not _HALF_CHARACTER.search(node.value)


_SCALARS: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": lambda text: text.lower() == "true",
    "null": lambda _: None,
}

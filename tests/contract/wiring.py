"""What a service really reads and writes, found in its source.

A topic is found where the kernel is given one. Reads: the arguments of `Subscription`, `Table`,
`StreamProcessor` and `RestoreFrom`, and `fetch`. Writes: the arguments of `Output`, `emit_raw` and `publish`,
and each event that is built. Names in those arguments are followed through assignments, functions, attributes
of `self` and imports.
"""

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from everloop_schemas import events
from everloop_schemas.events import Event
from everloop_schemas.topics import GROUPS, TOPICS, dead_letter_topic

READERS = {"Subscription", "Table", "StreamProcessor", "RestoreFrom"}
WRITERS = {"Output", "emit_raw", "publish"}
EVENTS = {model.__name__: model.topic for model in Event.__subclasses__()}


@dataclass
class Wiring:
    """Base names of topics, each with the places where it was found."""

    reads: dict[str, set[str]] = field(default_factory=dict)
    writes: dict[str, set[str]] = field(default_factory=dict)


@dataclass(eq=False)
class Module:
    """One source file and what its names stand for."""

    name: str
    tree: ast.Module
    imports: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    defined: dict[str, list[ast.AST]] = field(default_factory=dict)


@cache
def module(name: str) -> Module | None:
    """Parse one of our modules; None for anybody else's."""
    if not name.startswith("everloop_") or name.startswith("everloop_schemas"):
        return None
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None
    if spec is None or spec.origin is None:
        return None
    found = Module(name, ast.parse(Path(spec.origin).read_text("utf-8")))
    for node in ast.walk(found.tree):
        _note(node, found)
    return found


def _note(node: ast.AST, found: Module) -> None:
    if isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            found.imports[alias.asname or alias.name] = (node.module, alias.name)
    elif isinstance(node, ast.Import):
        for alias in node.names:
            found.imports[alias.asname or alias.name] = (alias.name, None)
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        found.defined.setdefault(node.name, []).extend(node.body)
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        _assign(node.target, node.value, found)
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            _assign(target, node.value, found)


def _assign(target: ast.expr, value: ast.expr, found: Module) -> None:
    if isinstance(target, ast.Name):
        found.defined.setdefault(target.id, []).append(value)
    elif isinstance(target, ast.Attribute):
        found.defined.setdefault(f".{target.attr}", []).append(value)
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for one, its in zip(target.elts, value.elts, strict=False):
            _assign(one, its, found)


def wiring(service: str) -> Wiring:
    """Scan every module of `everloop_<service>`."""
    result = Wiring()
    for found in _modules(f"everloop_{service}"):
        for node in ast.walk(found.tree):
            if isinstance(node, ast.Call):
                _scan_call(node, found, result)
    return result


def _modules(package: str) -> Iterator[Module]:
    root = importlib.util.find_spec(package)
    assert root is not None
    assert root.origin is not None
    folder = Path(root.origin).parent
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        name = ".".join([package, *(part for part in parts if part != "__init__")])
        found = module(name)
        assert found is not None
        yield found


def _scan_call(call: ast.Call, found: Module, result: Wiring) -> None:
    name, where = _made(call) or _called(call), f"{found.name}:{call.lineno}"
    if found.imports.get(name, ("", ""))[0] == events.__name__ and name in EVENTS:
        result.writes.setdefault(EVENTS[name], set()).add(where)
    if _is_artifact_fetch(call, found):
        result.reads.setdefault("trainer-artifact-chunk-v1", set()).add(where)
    if name in READERS | WRITERS:
        texts = _texts(call, found)
        target = result.reads if name in READERS else result.writes
        for topic in texts & TOPICS.keys():
            target.setdefault(topic, set()).add(where)
        for group in texts & set(GROUPS) if name in READERS else ():
            result.writes.setdefault(dead_letter_topic(group), set()).add(where)


def _made(call: ast.Call) -> str:
    """The class of a named tuple that is made by `tuple.__new__` under another name, else nothing."""
    first = call.args[0] if call.args else None
    return first.id if isinstance(first, ast.Name) and first.id in WRITERS else ""


def _called(call: ast.Call) -> str:
    function = call.func
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def _is_artifact_fetch(call: ast.Call, found: Module) -> bool:
    kernel = "everloop_kernel.artifacts"
    if isinstance(call.func, ast.Name):
        return found.imports.get(call.func.id) == (kernel, "fetch")
    owner = getattr(call.func, "value", None)
    imported = found.imports.get(getattr(owner, "id", ""), ("", None))
    return _called(call) == "fetch" and ".".join(filter(None, imported)) == kernel


def _texts(call: ast.Call, found: Module) -> set[str]:
    """Every text that the arguments may stand for."""
    # a handler's own code is scanned by itself: what it decodes says nothing about this call
    inside = [
        *call.args,
        *(word.value for word in call.keywords if word.arg not in ("handler", "open_task", "on_change")),
    ]
    seen: set[int] = set()
    return {text for node in inside for text in _follow(node, found, seen)}


def _follow(node: ast.AST, found: Module, seen: set[int]) -> Iterator[str]:
    if id(node) in seen:
        return
    seen.add(id(node))
    for inner in ast.walk(node):
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            yield inner.value
        elif isinstance(inner, ast.Name):
            yield from _name(inner.id, found, seen)
        elif isinstance(inner, ast.Attribute):
            yield from _attribute(inner, found, seen)


def _name(name: str, found: Module, seen: set[int]) -> Iterator[str]:
    origin, original = found.imports.get(name, ("", None))
    if origin == events.__name__:
        if original in EVENTS:
            yield EVENTS[original]
        return
    for node in found.defined.get(name, ()):
        yield from _follow(node, found, seen)
    source = module(origin) if original else None
    if source is not None and original is not None:
        yield from _name(original, source, seen)


def _attribute(node: ast.Attribute, found: Module, seen: set[int]) -> Iterator[str]:
    owner = node.value.id if isinstance(node.value, ast.Name) else ""
    if owner in ("self", "cls"):
        for value in [*found.defined.get(f".{node.attr}", ()), *found.defined.get(node.attr, ())]:
            yield from _follow(value, found, seen)
    origin, original = found.imports.get(owner, ("", None))
    source = module(f"{origin}.{original}" if original else origin)
    if source is not None:
        yield from _name(node.attr, source, seen)

"""Who may do what on the broker, from the topic files: for clusters whose clients have names.

Each service writes what it produces and reads what it consumes, and nothing else. An outside producer writes
the inbound topics of its pipelines alone, so the log, the models and the decisions cannot be forged by it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from everloop_schemas.topics import GROUPS, TOPICS, TopicSpec

__all__ = ["SERVICES", "Acl", "command_line", "producer_acls", "service_acls"]

SERVICES: Final = ("ingest", "feature", "trainer", "registry", "serving", "monitor")
INBOUND: Final = "producer-record-published-v1"
_CREATORS: Final = frozenset({"registry", "serving"})
"""Services that make a new pipeline's topics; its registry all of them, serving its own."""


@dataclass(frozen=True, slots=True)
class Acl:
    """What one principal may do with one resource, or with all whose names begin so."""

    principal: str
    operations: tuple[str, ...]
    resource: Literal["topic", "group", "transactional-id"]
    name: str
    prefixed: bool = False


def service_acls(service: str, principal: str) -> list[Acl]:
    """What a service needs; `principal` is such as `User:everloop-ingest`."""
    group = f"everloop-{service}"
    found = [acl for spec in TOPICS.values() for acl in _of_topic(service, principal, spec)]
    found += [Acl(principal, ("Read",), "group", name) for name in GROUPS if _belongs(name, group)]
    return [*found, Acl(principal, ("Write", "Describe"), "transactional-id", group, prefixed=True)]


def producer_acls(principal: str, pipelines: Iterable[str]) -> list[Acl]:
    """What an outside producer of these pipelines needs: their inbound topics, and no other."""
    spec = TOPICS[INBOUND]
    return [Acl(principal, ("Write", "Describe"), "topic", spec.topic_for(name)) for name in pipelines]


def command_line(acl: Acl, bootstrap_servers: str, command_config: str | None = None) -> str:
    """The `kafka-acls` command that grants it."""
    parts = ["kafka-acls", "--bootstrap-server", bootstrap_servers]
    if command_config is not None:
        parts += ["--command-config", command_config]
    parts += ["--add", "--allow-principal", acl.principal]
    parts += [word for operation in acl.operations for word in ("--operation", operation)]
    parts += [f"--{acl.resource}", acl.name]
    return " ".join([*parts, *(["--resource-pattern-type", "prefixed"] if acl.prefixed else [])])


def _belongs(group: str, prefix: str) -> bool:
    return group == prefix or group.startswith(f"{prefix}-")


def _of_topic(service: str, principal: str, spec: TopicSpec) -> Sequence[Acl]:
    operations = _operations(service, spec)
    if not operations:
        return []
    by_pipeline = spec.kind == "data"
    name = f"{spec.name}." if by_pipeline else spec.name
    return [Acl(principal, operations, "topic", name, prefixed=by_pipeline)]


def _operations(service: str, spec: TopicSpec) -> tuple[str, ...]:
    found = []
    if service in spec.producers:
        found.append("Write")
    if service in spec.consumers:
        found.append("Read")
    if spec.kind == "data" and service in _CREATORS & {"registry", spec.owner}:
        found.append("Create")
    return (*found, "Describe") if found else ()

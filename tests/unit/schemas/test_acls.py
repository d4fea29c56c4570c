"""Who may do what on the broker: services what their topics' files say, producers their inbound topics."""

import pytest
from everloop.cli.app import app
from everloop_schemas.acls import SERVICES, Acl, command_line, producer_acls, service_acls
from everloop_schemas.topics import TOPICS
from typer.testing import CliRunner


def allowed(acls: list[Acl], operation: str, kind: str, name: str) -> bool:
    return any(
        operation in acl.operations
        and acl.resource == kind
        and (name.startswith(acl.name) if acl.prefixed else name == acl.name)
        for acl in acls
    )


def test_an_outside_producer_writes_its_inbound_topics_and_nothing_else() -> None:
    """A leaked producer's password must not be enough to forge a log, a model or a decision."""
    acls = producer_acls("User:tower", ["flights", "pumps"])
    names = [spec.topic_for("flights" if spec.kind == "data" else None) for spec in TOPICS.values()]
    writable = [name for name in names if allowed(acls, "Write", "topic", name)]
    assert writable == ["producer-record-published-v1.flights"]
    assert not any(allowed(acls, operation, "topic", names[0]) for operation in ("Read", "Create", "Alter"))
    assert not allowed(acls, "Write", "topic", "producer-record-published-v1.flights-of-others")


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_may_what_its_topics_files_say(service: str) -> None:
    """A broken service must not be able to write what another one answers for."""
    acls = service_acls(service, f"User:everloop-{service}")
    for spec in TOPICS.values():
        name = spec.topic_for("p" if spec.kind == "data" else None)
        assert allowed(acls, "Write", "topic", name) == (service in spec.producers), name
        assert allowed(acls, "Read", "topic", name) == (service in spec.consumers), name
    others = {name for name in SERVICES if name != service}
    assert not any(allowed(acls, "Read", "group", f"everloop-{name}") for name in others)


def test_commands_are_printed_for_kafkas_own_tool() -> None:
    """An administrator reviews and runs them; nothing here touches a cluster."""
    result = CliRunner().invoke(
        app, ["topics", "acls", "--producer", "tower=flights", "--config", "a.properties"]
    )
    assert result.exit_code == 0, result.output
    last = result.output.splitlines()[-1]
    assert last == (
        "kafka-acls --bootstrap-server localhost:9092 --command-config a.properties --add --allow-principal "
        "User:tower --operation Write --operation Describe --topic producer-record-published-v1.flights"
    )
    prefixed = command_line(Acl("User:a", ("Read",), "topic", "x.", prefixed=True), "k:9092")
    assert prefixed.endswith("--operation Read --topic x. --resource-pattern-type prefixed")


def test_a_malformed_producer_is_said_to_be_one() -> None:
    """A grant that silently covers nothing would be found out in production."""
    result = CliRunner().invoke(app, ["topics", "acls", "--producer", "tower"])
    assert result.exit_code != 0

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from everloop_registry.domain.audit import GENESIS, AuditEntry, Deed, append, first_broken

NOW = datetime(2013, 1, 1, tzinfo=UTC)


def chain(length: int) -> list[AuditEntry]:
    entries: list[AuditEntry] = []
    for number in range(length):
        deed = Deed("p", "kim", "model-approved", number, {"reason": f"looks right {number}", "share": 0.1})
        entries.append(append(entries[-1] if entries else None, deed, NOW + timedelta(hours=number)))
    return entries


def test_a_chain_as_written_is_intact() -> None:
    entries = chain(5)
    assert entries[0].previous_sha256 == GENESIS
    assert [entry.sequence for entry in entries] == [1, 2, 3, 4, 5]
    assert first_broken(entries) is None
    assert first_broken([]) is None


@pytest.mark.parametrize(
    "change",
    [
        {"actor": "someone else"},
        {"action": "model-rejected"},
        {"model_version": 7},
        {"details": {"reason": "another", "share": 0.1}},
        {"pipeline": "q"},
    ],
)
def test_an_edited_deed_shows(change) -> None:
    """Whoever approved a bad model could otherwise have been someone else."""
    entries = chain(4)
    entries[2] = replace(entries[2], deed=replace(entries[2].deed, **change))
    assert first_broken(entries) == 3


def test_an_edited_time_shows() -> None:
    entries = chain(3)
    entries[1] = replace(entries[1], at=NOW)
    assert first_broken(entries) == 2


def test_an_edit_with_a_new_digest_breaks_the_next_link() -> None:
    entries = chain(4)
    deed = replace(entries[1].deed, actor="someone else")
    entries[1] = append(entries[0], deed, entries[1].at)
    assert first_broken(entries) == 3


def test_a_removed_entry_shows() -> None:
    entries = chain(4)
    assert first_broken(entries[:1] + entries[2:]) == 2

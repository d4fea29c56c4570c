"""Topics and tokens from an image that has no `everloop` command."""

import stat
from pathlib import Path

import pytest
from everloop_kernel import prepare
from everloop_kernel.auth import Tokens


def test_printed_token_is_accepted(tmp_path: Path, monkeypatch, capsys) -> None:
    """Who makes a token in a container must be let in with it, in the role and pipeline asked for."""
    file = tmp_path / "tokens.jsonl"
    monkeypatch.setenv("EVERLOOP_TOKENS_FILE", str(file))
    assert prepare.main(["token", "loader", "--role", "producer", "--pipeline", "pumps"]) == 0
    token = capsys.readouterr().out.strip()
    caller = Tokens(file).authenticate(f"Bearer {token}")
    assert caller is not None
    assert caller.has("producer")
    assert not caller.has("operator")
    assert caller.sees("pumps")
    assert not caller.sees("flights")
    assert token not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_missing_tokens_file_is_one_line(monkeypatch, capsys) -> None:
    """Without a place to keep it, a token would be lost: say which variable is missing."""
    monkeypatch.delenv("EVERLOOP_TOKENS_FILE", raising=False)
    assert prepare.main(["token", "me", "--role", "admin"]) == 1
    assert "EVERLOOP_TOKENS_FILE" in capsys.readouterr().err


def test_unknown_role_is_refused(capsys) -> None:
    """A typing mistake must not make a token that opens nothing."""
    with pytest.raises(SystemExit):
        prepare.main(["token", "me", "--role", "root"])
    assert "operator" in capsys.readouterr().err

import stat

import pytest
from everloop_kernel.errors import ConfigurationError
from everloop_registry.adapters.signing_key import SigningKey


def test_the_key_is_made_once_and_kept_secret(tmp_path) -> None:
    """A new key at each start would make every deployed signature worthless."""
    first = SigningKey.open(tmp_path)
    path = tmp_path / "registry" / "signing-key.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SigningKey.open(tmp_path).public_bytes == first.public_bytes
    assert sorted(item.name for item in path.parent.iterdir()) == ["signing-key.pem"]


def test_the_public_half_lies_where_serving_looks(tmp_path) -> None:
    key = SigningKey.open(tmp_path)
    assert (tmp_path / "keys" / f"{key.key_id}.pub").read_text() == key.public_bytes.hex()


def test_a_broken_key_is_said_in_words(tmp_path) -> None:
    """A traceback at night tells nobody which file to restore."""
    path = tmp_path / "registry" / "signing-key.pem"
    path.parent.mkdir()
    path.write_text("no key")
    with pytest.raises(ConfigurationError, match="restore the key"):
        SigningKey.open(tmp_path)

"""What serving keeps on disk, whole or damaged."""

import pytest
from everloop_serving.adapters.files import Home, ModelCache


def test_an_instance_keeps_its_name(tmp_path) -> None:
    """Its prediction events and load reports are told apart by it."""
    home = Home(tmp_path)
    assert home.instance(None) == home.instance(None)
    assert home.instance("blue") == "blue"


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"0123", b"a\nb"])
def test_a_damaged_name_is_made_anew(tmp_path, damage) -> None:
    """A bad sector must not keep serving, and with it the whole stack, from starting."""
    home = Home(tmp_path)
    (tmp_path / "instance").write_bytes(damage)
    made = home.instance(None)
    assert len(made) == 12
    assert home.instance(None) == made


def test_a_damaged_artifact_is_not_served(tmp_path) -> None:
    """It is fetched again: a model that differs by a byte is another model."""
    cache = ModelCache(tmp_path)
    cache.put("0" * 64, b"not what the digest says")
    assert cache.get("0" * 64) is None
    assert not (tmp_path / ("0" * 64)).exists()

"""Canonical JSON, derived ids, partitions: what must be the same on every machine, for ever."""

import math

import pytest
from aiokafka.partitioner import murmur2 as aiokafka_murmur2
from everloop_schemas import canonical
from everloop_schemas.ids import derived_id
from everloop_schemas.partition import key_bytes, murmur2, partition_of


def test_canonical_json_sorts_keys_and_keeps_unicode() -> None:
    """A digest that depended on the order of keys would make every verify fail."""
    assert canonical.dumps({"b": [1.0, None], "a": "é"}) == '{"a":"é","b":[1.0,null]}'.encode()


def test_a_cut_has_one_text_whether_its_keys_are_numbers_or_text() -> None:
    """A cut that travelled through JSON must keep its digest: 10 sorts before 9 either way."""
    assert canonical.dumps({10: 1, 9: 2}) == canonical.dumps({"10": 1, "9": 2}) == b'{"10":1,"9":2}'


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": -math.inf}, "\ud800"])
def test_canonical_json_refuses_what_json_lacks(value: object) -> None:
    """A signature over NaN could not be checked by a reader in another language."""
    with pytest.raises(ValueError, match=r".+"):
        canonical.dumps(value)


def test_canonical_json_refuses_odd_keys() -> None:
    with pytest.raises(TypeError, match="key must be text"):
        canonical.dumps({True: 1})


def test_derived_ids_are_frozen() -> None:
    """Ids that changed with a release would make a replay look like new events."""
    assert derived_id("a1", "run") == "0acc937c-daec-5f16-bf77-dc6f27c24ac4"
    assert derived_id("a1", "dataset") != derived_id("a1", "run")


@pytest.mark.parametrize(
    ("key", "java"),
    [  # from UtilsTest.java of Apache Kafka
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_javas(key: bytes, java: int) -> None:
    """A Java producer and ours must put one key on one partition, or a key's order is lost."""
    assert murmur2(key) == java & 0xFFFFFFFF == aiokafka_murmur2(key) & 0xFFFFFFFF


def test_key_bytes_join_values() -> None:
    """3 and 3.0 are one JSON number: two producers must not split one customer."""
    assert key_bytes(["EWR", None, 3, 3.0, True, 0.5]) == b"EWR\x1f\x1f3\x1f3\x1ftrue\x1f0.5"


def test_key_bytes_take_any_text() -> None:
    assert key_bytes(["\ud800", float("nan"), float("inf")])


def test_a_topic_without_partitions_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one partition"):
        partition_of(b"EWR", 0)

"""The reader of JSON from outside."""

import pytest
from everloop_schemas.strict_json import strict_json


def _code(data: bytes, **limits: int) -> str | None:
    return getattr(strict_json(data, **limits), "code", None)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "malformed-json"),
        (b"{", "malformed-json"),
        (b'{"a": NaN}', "malformed-json"),
        (b'{"a": -Infinity}', "malformed-json"),
        (b'{"a": 1,}', "malformed-json"),
        (b'{"a": 1} x', "malformed-json"),
        (b"\xef\xbb\xbf{}", "malformed-json"),
        (rb'{"a": "\ud800"}', "malformed-json"),
        (rb'{"a": "\udc00"}', "malformed-json"),
        (b'{"a": "\xff"}', "invalid-utf8"),
        (b'{"\xff": 1}', "invalid-utf8"),
        (b"[1]", "not-an-object"),
        (b"null", "not-an-object"),
        (b'"a"', "not-an-object"),
        (b'{"a": 1, "a": 1}', "duplicate-key"),
        (b'{"a": "x", "a": "x"}', "duplicate-key"),
        (b'{"a" : 1, "a": "x"}', "duplicate-key"),
        (rb'{"a": 1, "\u0061": 2}', "duplicate-key"),
        (rb'{"a\\": 1, "a\\": 2}', "duplicate-key"),
        (b'{"a": {"b": 1, "b": 2}}', "duplicate-key"),
        (b'{"a": [{"b": 1, "b": 2}]}', "duplicate-key"),
        (b'{"a": {}, "a": {}}', "duplicate-key"),
        (b'{"a": 9223372036854775808}', "number-range"),
        (b'{"a": -9223372036854775809}', "number-range"),
        (b'{"a": 1e999}', "number-range"),
        (b'{"a": ' + b"9" * 5000 + b"}", "number-range"),
        (b'{"a": ' + b"[" * 8 + b"]" * 8 + b"}", "too-deep"),
        (b'{"a":' * 100_000, "too-deep"),
        (b'{"a": ' + b"[" * 50_000 + b"]" * 50_000 + b', "a": 1}', "too-deep"),
    ],
)
def test_refuses_with_a_stable_code(data: bytes, code: str) -> None:
    """Two readers of an ambiguous record would compute different features from it."""
    assert _code(data) == code


def test_limits_are_exact() -> None:
    assert _code(b'{"a": [[1]]}', max_depth=3) is None
    assert _code(b'{"a": [[1]]}', max_depth=2) == "too-deep"
    assert _code(b'{"a":1}', max_bytes=7) is None
    assert _code(b'{"a":1}', max_bytes=6) == "too-large"


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"{}", {}),
        (b' {"a": 9223372036854775807, "b": -9223372036854775808} ', {"a": 2**63 - 1, "b": -(2**63)}),
        (rb'{"a\"": "\\", "b": "\\\""}', {'a"': "\\", "b": '\\"'}),
        (rb'{"a": "\ud83d\ude00", "b": "x:\"y\":"}', {"a": "😀", "b": 'x:"y":'}),
        (b'{"a": {"b": [1, null, true]}, "c": 1.5}', {"a": {"b": [1, None, True]}, "c": 1.5}),
    ],
)
def test_reads_what_is_valid(data: bytes, value: dict[str, object]) -> None:
    """A valid record that is refused is a record lost."""
    assert strict_json(data) == value


def test_every_refusal_says_how_to_mend_it() -> None:
    refused = strict_json(b'{"price": NaN}')
    assert "null" in getattr(refused, "mend", "")

"""From a request's tensors to rows of fields."""

import struct

import pytest
from everloop_serving.domain.inputs import Inputs
from everloop_serving.domain.tensors import InvalidInput, Tensor, from_raw, to_raw
from integration.serving.deployed_model import DATATYPES, RECORD, pipeline_named

INPUTS = Inputs.of(pipeline_named("flights"), most_rows=100)


def tensors(*rows: dict, **changed: Tensor | None) -> list[Tensor]:
    rows = rows or (RECORD,)
    found = {
        name: Tensor(name, DATATYPES.get(name, "BYTES"), [len(rows)], [row[name] for row in rows])
        for name in rows[0]
    }
    return [tensor for tensor in {**found, **changed}.values() if tensor is not None]


def test_rows_have_every_field_and_the_event_time() -> None:
    """The evaluator reads fields by name: a lost one is a silent null."""
    [row] = INPUTS.rows(tensors(), "a1")
    fields = {name: value for name, value in RECORD.items() if name != "departs"}
    assert (row.id, row.fields, row.event_time_us) == ("a1", fields, 1357017300000000)


def test_many_rows_get_numbered_ids() -> None:
    """Each row is joined with its own label."""
    rows = INPUTS.rows(tensors(RECORD, {**RECORD, "origin": "JFK"}), "a1")
    assert [(row.id, row.fields["origin"]) for row in rows] == [("a1-0", "EWR"), ("a1-1", "JFK")]


def test_an_id_input_names_the_rows() -> None:
    """A caller with ids of its own keeps them."""
    more = {"id": Tensor("id", "BYTES", [2], ["x", "y"])}
    assert [row.id for row in INPUTS.rows(tensors(RECORD, RECORD, **more), "a1")] == ["x", "y"]


@pytest.mark.parametrize("bad", ["a\0b", "a\nb", "\x7f", "", "x" * 257])
def test_an_id_that_the_log_would_refuse_is_refused(bad: str) -> None:
    """The monitor could not store the prediction: enough of them, and its consumer stops."""
    with pytest.raises(InvalidInput, match="an id"):
        INPUTS.row({**RECORD, "id": bad}, "a1")
    with pytest.raises(InvalidInput, match="an id"):
        INPUTS.rows(tensors(id=Tensor("id", "BYTES", [1], [bad])), "a1")
    with pytest.raises(InvalidInput, match="an id"):
        INPUTS.rows(tensors(), bad)


def test_an_id_may_have_any_other_character() -> None:
    assert INPUTS.row({**RECORD, "id": "Zürich\u00a0\U000f0000"}, "a1").id == "Zürich\u00a0\U000f0000"


def test_nullable_fields_may_be_null_nan_or_absent() -> None:
    """Sensors fail; the model knows what missing means."""
    for wind in (None, Tensor("wind", "FP64", [1], [None]), Tensor("wind", "FP32", [1], [float("nan")])):
        [row] = INPUTS.rows(tensors(wind=wind), "a1")
        assert row.fields["wind"] is None


@pytest.mark.parametrize(
    "datatype", ["FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT64"]
)
def test_every_numeric_datatype_is_a_number(datatype: str) -> None:
    """Clients send what their arrays are made of."""
    value = 100.0 if datatype.startswith("FP") else 100
    [row] = INPUTS.rows(tensors(distance=Tensor("distance", datatype, [1], [value])), "a1")
    assert row.fields["distance"] == 100.0
    assert type(row.fields["distance"]) is float


@pytest.mark.parametrize(
    ("name", "tensor", "says"),
    [
        ("speed", Tensor("speed", "FP64", [1], [1.0]), "'speed' is not known"),
        ("distance", None, "'distance' is missing"),
        ("departs", None, "'departs' is missing"),
        ("distance", Tensor("distance", "BYTES", [1], ["far"]), "'distance' has the datatype 'BYTES'"),
        ("distance", Tensor("distance", "BF16", [1], [1.0]), "'distance' has the datatype 'BF16'"),
        ("distance", Tensor("distance", "FP64", [1], ["far"]), "'distance': 'far'"),
        ("distance", Tensor("distance", "FP64", [1], [None]), "'distance' must not be null"),
        ("distance", Tensor("distance", "FP64", [1], [float("inf")]), "'distance': 'inf'"),
        ("distance", Tensor("distance", "FP64", [1], [True]), "'distance': 'True'"),
        ("distance", Tensor("distance", "INT8", [1], [300]), "'distance': '300' is no INT8"),
        ("distance", Tensor("distance", "UINT8", [1], [-1]), "'distance': '-1' is no UINT8"),
        ("distance", Tensor("distance", "INT64", [1], [1.5]), "'distance': '1.5' is no INT64"),
        ("distance", Tensor("distance", "FP64", [2], [1.0]), "'distance' has 1 values for the shape [2]"),
        ("distance", Tensor("distance", "FP64", [1, 2], [1.0, 2.0]), "'distance'"),
        ("distance", Tensor("distance", "FP64", [], [1.0]), "'distance'"),
        ("distance", Tensor("distance", "FP64", [-1], []), "'distance'"),
        ("distance", Tensor("distance", "FP64", [2], [1.0, 2.0]), "'distance' has 2 rows"),
        ("seats", Tensor("seats", "FP64", [1], [1.5]), "'seats': '1.5'"),
        ("holiday", Tensor("holiday", "BOOL", [1], [1]), "'holiday': '1'"),
        ("origin", Tensor("origin", "BYTES", [1], [5]), "'origin': '5'"),
        ("departs", Tensor("departs", "BYTES", [1], ["yesterday"]), "'departs': 'yesterday' is no RFC 3339"),
        ("departs", Tensor("departs", "BYTES", [1], ["2013-01-01T05:15:00"]), "'departs'"),
        ("departs", Tensor("departs", "BYTES", [1], ["9999-12-31T23:59:59-05:00"]), "'departs'"),
        ("id", Tensor("id", "BYTES", [1], [""]), "'id'"),
    ],
)
def test_a_wrong_input_is_named(name: str, tensor: Tensor | None, says: str) -> None:
    """A caller with thirteen inputs must read which one is wrong, and how."""
    with pytest.raises(InvalidInput) as refused:
        INPUTS.rows(tensors(**{name: tensor}), "a1")
    assert says in str(refused.value)


def test_no_rows_and_too_many_are_refused() -> None:
    """A request must not take the server for minutes."""
    with pytest.raises(InvalidInput, match="no inputs"):
        INPUTS.rows([], "a1")
    with pytest.raises(InvalidInput, match="at most 100"):
        INPUTS.rows(tensors(*[RECORD] * 101), "a1")


def test_an_input_given_twice_is_refused() -> None:
    """Two readers would take different ones."""
    with pytest.raises(InvalidInput, match="twice"):
        INPUTS.rows([*tensors(), *tensors()], "a1")


def test_column_shapes_are_accepted() -> None:
    """Clients that send [rows, 1] exist."""
    [row] = INPUTS.rows(tensors(distance=Tensor("distance", "FP64", [1, 1], [9.0])), "a1")
    assert row.fields["distance"] == 9.0


@pytest.mark.parametrize(
    ("datatype", "raw", "values"),
    [
        ("BOOL", b"\x01\x00", [True, False]),
        ("INT8", b"\xff\x01", [-1, 1]),
        ("UINT16", struct.pack("<2H", 1, 65535), [1, 65535]),
        ("INT64", struct.pack("<q", -(2**63)), [-(2**63)]),
        ("FP16", struct.pack("<2e", 1.5, -2.0), [1.5, -2.0]),
        ("FP32", struct.pack("<f", 0.5), [0.5]),
        ("FP64", struct.pack("<d", 0.1), [0.1]),
        ("BYTES", b"\x03\x00\x00\x00EWR\x00\x00\x00\x00", ["EWR", ""]),
    ],
)
def test_raw_tensors_are_read(datatype: str, raw: bytes, values: list) -> None:
    """Binary clients (Triton's) send nothing else."""
    assert from_raw("x", datatype, raw) == values
    if datatype in ("FP64", "BYTES"):
        assert to_raw(datatype, values) == raw


@pytest.mark.parametrize(
    ("datatype", "raw"),
    [
        ("FP64", b"1234567"),
        ("BYTES", b"\x03\x00"),
        ("BYTES", b"\x09\x00\x00\x00EWR"),
        ("BYTES", b"\x01\x00\x00\x00\xff"),
        ("X", b""),
    ],
)
def test_broken_raw_tensors_are_refused(datatype: str, raw: bytes) -> None:
    """Bytes that end early must not become values."""
    with pytest.raises(InvalidInput, match="'x'"):
        from_raw("x", datatype, raw)

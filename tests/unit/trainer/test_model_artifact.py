import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from everloop_trainer.domain.artifact import golden_rows, pack, unpack_model
from everloop_trainer.domain.matrix import categories_of, encode
from everloop_trainer.domain.parameters import Parameters, UnknownParameterError, check, seed_of

sys.path.insert(0, str(Path(__file__).parent))
from trainer_data import vectors

DECLARED = Parameters(trees=300, leaves=31, learning_rate=0.05, min_data_in_leaf=20)


def test_the_same_model_packs_to_the_same_bytes():
    """Owner, time or order in an archive would give one model two digests."""
    packed = pack({"b": 1, "a": [None, 0.1]}, "tree\n")
    assert packed == pack({"a": [None, 0.1], "b": 1}, "tree\n")
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        assert [(m.name, m.mtime, m.uid, m.uname, m.mode) for m in tar] == [
            ("manifest.json", 0, 0, "", 0o644),
            ("model.txt", 0, 0, "", 0o644),
        ]
    manifest, model = unpack_model(packed)
    assert json.loads(manifest) == {"a": [None, 0.1], "b": 1}
    assert model == "tree\n"


def test_an_archive_without_a_model_is_refused_by_name():
    buffer = io.BytesIO()
    tarfile.open(fileobj=buffer, mode="w").close()
    with pytest.raises(ValueError, match=r"manifest\.json"):
        unpack_model(buffer.getvalue())


@pytest.mark.parametrize(("rows", "expected"), [(0, []), (1, [0]), (3, [0, 1, 2]), (20, list(range(20)))])
def test_few_rows_are_all_golden(rows, expected):
    assert golden_rows(rows) == expected


def test_golden_rows_span_the_dataset():
    """Golden rows from one hour would not notice a category that is encoded wrongly in another."""
    chosen = golden_rows(100_000)
    assert (len(set(chosen)), chosen[0], chosen[-1]) == (20, 0, 99_999)


def test_the_matrix_equals_what_serving_encodes():
    """A category with another code in serving than in training is a wrong prediction nobody sees."""
    encoding = pytest.importorskip("everloop_features.encoding")
    columns = vectors(200).columns
    taught = categories_of(tuple(column.take(np.arange(100)) for column in columns))
    matrix = encode(columns, {**taught, "carrier": ["A", "B", "C"]})
    features = [
        {"name": "wind", "type": "number"},
        {"name": "wet", "type": "boolean"},
        {"name": "carrier", "type": "category", "categories": ["A", "B", "C"]},
    ]
    encoder = encoding.Encoder(features)
    for i, row in enumerate(matrix.tolist()):
        values = [None if column.values[i] != column.values[i] else column.values[i] for column in columns]
        assert repr(list(encoder.row(values))) == repr(row)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ({"tress": 3}, "tress is no parameter of a run; there are trees, leaves"),
        ({"trees": 2.5}, "trees must be a whole number, not 2.5"),
        ({"trees": True}, "trees must be a whole number, not True"),
        ({"leaves": 1}, "leaves must be from 2 to 4096, not 1"),
        ({"learning_rate": "fast"}, "learning_rate must be a number, not 'fast'"),
    ],
)
def test_an_override_that_cannot_be_used_is_refused_with_what_can(override, said):
    """A typing error must not start a run with other settings than were asked for."""
    with pytest.raises(UnknownParameterError, match=said):
        check(override)


def test_overrides_replace_the_pipelines_settings():
    assert DECLARED.overridden({"trees": 5, "learning_rate": 1}) == Parameters(5, 31, 1, 20)


def test_the_seed_follows_from_the_run():
    """A seed from the clock would make verification impossible."""
    assert seed_of("run") == seed_of("run") != seed_of("other")
    assert 0 <= seed_of("run") < 2**31

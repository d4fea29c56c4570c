"""The second tree engine gives LightGBM's bits, also where engines like to part."""

import math
import os

import lightgbm
import numpy as np
import pytest
from everloop_serving.adapters import lignum_engine, sandbox_child
from everloop_serving.adapters.lightgbm_engine import Booster
from everloop_serving.adapters.lignum_engine import FastTrees
from everloop_serving.domain.replay_rows import replay_rows
from integration.serving.deployed_model import trained_text

TEXT = trained_text(3, 60, 63).encode()


def test_replayed_rows_are_answered_bit_for_bit() -> None:
    """Both engines may answer for one model version, on different replicas."""
    rows = replay_rows(TEXT, features=9, rows=20_000)
    assert [output.hex() for output in FastTrees(TEXT).predict(rows)] == [
        output.hex() for output in Booster(TEXT).predict(rows)
    ]


def test_replayed_rows_meet_the_model_where_it_decides() -> None:
    """Random numbers alone would never lie on a threshold, where engines part."""
    rows = replay_rows(TEXT, features=9, rows=5000)
    wind = [row[lightgbm.Booster(model_str=TEXT.decode()).feature_name().index("wind")] for row in rows]
    assert rows == replay_rows(TEXT, features=9, rows=5000)
    assert {math.inf, -math.inf, 0.0} <= set(wind)
    assert any(map(math.isnan, wind))
    thresholds = set(wind) & {math.nextafter(value, math.inf) for value in wind}
    assert len(thresholds) > 50, "values and their neighbours"


@pytest.mark.parametrize("task", ["regression", "quantile", "regression_l1"])
def test_regressions_are_answered_bit_for_bit(task) -> None:
    """A `number` label has another objective and no sigmoid."""
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(3000, 6))
    matrix[rng.random(matrix.shape) < 0.1] = np.nan
    options = {"objective": task, "num_leaves": 31, "num_threads": 1, "verbose": -1}
    booster = lightgbm.train(options, lightgbm.Dataset(matrix, np.nansum(matrix, axis=1)), 50)
    text = booster.model_to_string().encode()
    rows = replay_rows(text, features=6, rows=5000)
    assert FastTrees(text).predict(rows) == Booster(text).predict(rows)


def test_a_row_of_another_width_is_an_error() -> None:
    """Rows lie one behind the other: a short one and a long one would shift each other's values."""
    for widths in ((9, 8), (8, 10)):
        with pytest.raises(ValueError, match="9 values"):
            FastTrees(TEXT).predict([[0.0] * width for width in widths])


def test_a_system_without_files_in_memory_uses_a_temporary_one(monkeypatch) -> None:
    """macOS has no memfd."""
    row = [0.5] * 9
    monkeypatch.delattr(os, "memfd_create")
    assert FastTrees(TEXT).predict([row]) == Booster(TEXT).predict([row])


def test_without_the_library_lightgbm_answers(monkeypatch) -> None:
    """The engine is an extra: a platform without its wheel serves all the same."""
    monkeypatch.setattr(lignum_engine.importlib.util, "find_spec", lambda name: None)
    row = [0.5] * 9
    task = sandbox_child.Task(9, "binary", True, [[cell.hex() for cell in row]], 1, 1)  # noqa: FBT003
    verdict = sandbox_child.examine(task, TEXT)
    assert [float.fromhex(output) for output in verdict.outputs] == Booster(TEXT).predict([row])
    assert verdict.fast_engine == "no other engine is installed"

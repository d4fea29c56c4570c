"""The C library by ctypes answers as LightGBM's own package does, bit for bit."""

import subprocess
import sys

import lightgbm
import numpy as np
import pytest
from everloop_serving.adapters.lightgbm_engine import Booster, EngineError, Explainer
from integration.serving.deployed_model import trained_text


def rows() -> np.ndarray:
    rng = np.random.default_rng(5)
    found = np.column_stack([rng.normal(5, 40, (2000, 7)), rng.integers(-2, 12, (2000, 2))])
    found[rng.random(found.shape) < 0.2] = np.nan
    found[0, 0], found[1, 3], found[2, 1] = np.inf, -np.inf, 1e300
    return found


def test_rows_equal_the_package_bit_for_bit() -> None:
    """Golden predictions compare bits; a rounded answer would refuse every model."""
    text = trained_text(2, 40, 31)
    expected = lightgbm.Booster(model_str=text).predict(rows()).tolist()
    booster = Booster(text.encode())
    assert booster.predict(rows().tolist()) == expected


def test_contributions_equal_the_package_bit_for_bit() -> None:
    """What an explanation says must be what LightGBM says."""
    text = trained_text(2, 40, 31)
    expected = lightgbm.Booster(model_str=text).predict(rows()[:200], pred_contrib=True).tolist()
    explainer = Explainer(text.encode())
    assert explainer.contributions(rows()[:200].tolist()) == expected
    with pytest.raises(ValueError, match="same size"):
        explainer.contributions([[0.0] * 9, [0.0] * 8])


def test_a_text_that_is_no_model_is_an_error() -> None:
    """LightGBM's refusal must come as an exception with its words."""
    with pytest.raises(EngineError):
        Booster(b"this is no model")


def test_a_row_of_another_width_is_an_error() -> None:
    """LightGBM would read memory behind a row that is too short."""
    booster = Booster(trained_text(2, 40, 31).encode())
    with pytest.raises(ValueError, match="same size"):
        booster.predict([[0.0] * 8])


def test_the_package_is_not_imported() -> None:
    """Importing it costs 130 MB of memory and half a second of every start."""
    code = (
        "import everloop_serving.__main__, sys;"
        "assert not {'lightgbm', 'numpy', 'pandas', 'scipy'} & sys.modules.keys(), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

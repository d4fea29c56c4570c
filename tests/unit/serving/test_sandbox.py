"""The sandbox survives what a model does, and says what it was."""

import math

import pytest
from everloop_serving.adapters.lightgbm_engine import Booster
from everloop_serving.adapters.sandbox import Sandbox
from everloop_serving.application.ports import ModelRefused
from integration.serving.deployed_model import trained_text

ROWS = [[0.5, 1.0, 2.0, 7.0, math.nan, 100.0, 1.0, 3.0, 0.2], [math.nan] * 9]


async def outputs(text: bytes, sandbox: Sandbox | None = None) -> list[float]:
    return await (sandbox or Sandbox()).outputs(text, task="binary", features=9, rows=ROWS)


async def test_outputs_come_back_bit_for_bit() -> None:
    """Golden predictions are compared on them."""
    text = trained_text(1, 20, 31).encode()
    predictor = Booster(text).row_predictor()
    assert await outputs(text) == [predictor.predict(row) for row in ROWS]


async def test_a_broken_model_is_refused_with_its_reason() -> None:
    """An operator must read why a version is not served."""
    with pytest.raises(ModelRefused, match="truncated"):
        await outputs(trained_text(1, 20, 31).encode()[:5000])


async def test_a_model_that_takes_too_long_is_stopped() -> None:
    """A model that hangs must not hang serving."""
    with pytest.raises(ModelRefused, match="longer than"):
        await outputs(trained_text(1, 20, 31).encode(), Sandbox(wall_seconds=0.001))


async def test_a_model_that_ends_the_process_is_refused() -> None:
    """A crash in LightGBM ends the sandbox, not serving."""
    with pytest.raises(ModelRefused, match=r"SIGKILL|SIGXCPU|status"):
        await outputs(trained_text(1, 20, 31).encode(), Sandbox(cpu_seconds=0))

"""The sandbox survives what a model does, and says what it was."""

import math
import signal

import pytest
from everloop_serving.adapters import sandbox_child
from everloop_serving.adapters.lightgbm_engine import Booster
from everloop_serving.adapters.lignum_engine import FastTrees
from everloop_serving.adapters.sandbox import Sandbox
from everloop_serving.application.ports import ModelRefused
from integration.serving.deployed_model import trained_text

ROWS = [[0.5, 1.0, 2.0, 7.0, math.nan, 100.0, 1.0, 3.0, 0.2], [math.nan] * 9]


async def outputs(text: bytes, sandbox: Sandbox | None = None) -> list[float]:
    trial = await (sandbox or Sandbox()).trial(text, task="binary", features=9, rows=ROWS)
    return trial.outputs


async def test_outputs_come_back_bit_for_bit() -> None:
    """Golden predictions are compared on them."""
    text = trained_text(1, 20, 31).encode()
    assert await outputs(text) == Booster(text).predict(ROWS)


async def test_the_fast_engine_may_answer_when_it_gives_the_same_bits() -> None:
    """Most of a request's time goes into trees; a fast answer that differs would be no answer."""
    text = trained_text(1, 20, 31).encode()
    trial = await Sandbox().trial(text, task="binary", features=9, rows=ROWS)
    assert trial.fast_engine is None
    refused = await Sandbox(fast_engine=False).trial(text, task="binary", features=9, rows=ROWS)
    assert (refused.outputs, refused.fast_engine) == (trial.outputs, "the setting says so")


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        (lambda right: [*right[:-1], right[-1] * (1 + 2**-52)], "answers 1 of 1002 rows differently"),
        (lambda right: 1 / 0, "the other engine fails: division by zero"),
    ],
)
def test_a_fast_engine_that_errs_by_one_bit_answers_nothing(monkeypatch, answers, why) -> None:
    """A bit today is a decision tomorrow: golden predictions promise all of them."""
    text = trained_text(1, 20, 31).encode()

    class Wrong(FastTrees):
        def predict(self, rows):
            return answers(super().predict(rows))

    monkeypatch.setattr(sandbox_child, "FastTrees", Wrong)
    rows = [[cell.hex() for cell in row] for row in ROWS]
    task = sandbox_child.Task(9, "binary", True, rows, cpu_seconds=1, memory_bytes=1)  # noqa: FBT003
    verdict = sandbox_child.examine(task, text)
    assert [float.fromhex(output) for output in verdict.outputs] == Booster(text).predict(ROWS)
    assert why in verdict.fast_engine


async def test_a_fast_engine_that_ends_the_sandbox_leaves_the_model_to_lightgbm() -> None:
    """A crash of the young engine must not keep a sound model from being served."""
    text = trained_text(1, 20, 31).encode()

    class Crashing(Sandbox):
        async def _run(self, stdin: bytes) -> tuple[int, bytes, bytes]:
            if b'"fast_engine":true' in stdin.partition(b"\n")[0]:
                return -signal.SIGSEGV, b"", b""
            return await super()._run(stdin)

    trial = await Crashing().trial(text, task="binary", features=9, rows=ROWS)
    assert trial.outputs == Booster(text).predict(ROWS)
    assert trial.fast_engine == "with the other engine loading ends the sandbox by SIGSEGV"
    with pytest.raises(ModelRefused, match="SIGSEGV"):
        await AlwaysCrashing().trial(text, task="binary", features=9, rows=ROWS)


class AlwaysCrashing(Sandbox):
    async def _run(self, stdin: bytes) -> tuple[int, bytes, bytes]:
        return -signal.SIGSEGV, b"", b""


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

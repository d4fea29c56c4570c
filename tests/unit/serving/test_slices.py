"""Requests of many rows leave room for everything else."""

import asyncio

import pytest
from everloop_serving.application.slices import SLICE_ROWS, Slices


async def test_requests_take_turns_one_slice_a_pass_of_the_loop() -> None:
    """Sixteen slices in one pass held up single rows and the publishing of events for 50 ms."""
    slices, passes, done = Slices(), [0], list[tuple[int, str, int]]()

    async def count_passes() -> None:
        while True:
            await asyncio.sleep(0)
            passes[0] += 1

    counting = asyncio.create_task(count_passes())
    rows = list(range(3 * SLICE_ROWS + 1))
    await asyncio.gather(
        *(slices.each(rows, lambda part, n=name: done.append((passes[0], n, len(part)))) for name in "abc")
    )
    counting.cancel()
    assert "".join(name for _, name, _ in done) == "abc" * 4
    assert [size for _, name, size in done if name == "b"] == [SLICE_ROWS] * 3 + [1]
    assert len({at for at, _, _ in done}) == len(done)


async def test_a_slice_that_fails_ends_its_own_request_alone() -> None:
    """A lock that a failed request kept would silence every later one."""
    slices, done = Slices(), list[int]()
    with pytest.raises(ZeroDivisionError):
        await slices.each([0], lambda part: done.append(1 // part[0]))
    await asyncio.wait_for(slices.each([1], lambda part: done.append(1 // part[0])), 1)
    assert done == [1]

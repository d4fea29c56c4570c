"""Ingest and feature under kills, zombies, broker crashes and rebalances: the bytes of a calm run."""

import asyncio
import random
import time
from pathlib import Path

import pytest
from chaos.data_plane_checks import Left, read_all
from chaos.data_plane_disturbances import ROUNDS, Disturbances, publish
from chaos.data_plane_records import PARTITIONS, RECORDS, Sent, inbound
from chaos.data_plane_stack import DataPlane, data_plane
from everloop.lag import lag_by_group

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

SEED = 7
SESSION_MS = 4_000
TAIL = 50
"""Records of each partition that come last, to members that know of the others only what Kafka holds."""


async def test_a_disturbed_data_plane_makes_the_bytes_of_a_calm_one(tmp_path: Path) -> None:
    """Otherwise a crash changes a model: a row lost or doubled, a window that forgot or counted twice."""
    lanes = inbound(SEED)
    assert sum(map(len, lanes)) == RECORDS
    async with asyncio.TaskGroup() as group:
        disturbing = group.create_task(under_disturbances(tmp_path / "disturbed", lanes))
        calming = group.create_task(undisturbed(tmp_path / "calm", lanes))
    disturbed, calm = disturbing.result(), calming.result()
    assert disturbed.log_values() == calm.log_values()
    assert disturbed.vector_values() == calm.vector_values()
    assert disturbed.groups() == calm.groups()


async def under_disturbances(folder: Path, lanes: list[list[Sent]]) -> Left:
    """Most records while everything dies; then new feature members, and the last records."""
    async with data_plane(folder, SESSION_MS) as plane:
        disturbances = Disturbances(plane, random.Random(SEED))
        async with asyncio.TaskGroup() as group:
            group.create_task(disturbances.run())
            group.create_task(publish(plane, [lane[:-TAIL] for lane in lanes], disturbances))
        left = await settled(plane)
        hold_against_a_replay(left)
        assert disturbances.done["restart_broker"] == disturbances.done["freeze"] == ROUNDS
        assert plane.restarts["ingest"] >= 2 * ROUNDS
        assert plane.restarts["feature"] >= 2 * ROUNDS
        await plane.kill_for_good("feature")
        plane.join("feature-4")
        await publish(plane, [lane[-TAIL:] for lane in lanes])
        left = await settled(plane)
    hold_against_a_replay(left)
    hold_the_refused_against(left, lanes)
    return left


async def undisturbed(folder: Path, lanes: list[list[Sent]]) -> Left:
    """The same records on a fresh stack that nothing happens to."""
    async with data_plane(folder) as plane:
        await publish(plane, lanes)
        left = await settled(plane)
    hold_against_a_replay(left)
    hold_the_refused_against(left, lanes)
    return left


async def settled(plane: DataPlane, seconds: float = 150) -> Left:
    """What is there once both groups have handled everything."""
    limit = time.monotonic() + seconds
    groups = ["everloop-ingest", "everloop-feature"]
    while any((await lag_by_group(plane.settings, groups)).values()):
        assert time.monotonic() < limit, plane.said()
        await asyncio.sleep(0.3)
    return await read_all(plane.settings)


def hold_against_a_replay(left: Left) -> None:
    """The log decides everything: each vector once, and each key's state, to the byte."""
    for published, replayed in zip(left.published_vectors(), left.replayed_vectors(), strict=True):
        assert published == replayed
    for table, replayed in zip(left.tables(), left.replayed_tables(), strict=True):
        assert table == replayed


def hold_the_refused_against(left: Left, lanes: list[list[Sent]]) -> None:
    """Whoever sent something wrong finds it set aside once, however often a member died over it."""
    hostile = {each.value for lane in lanes for each in lane if each.hostile}
    places = {(p, r.offset) for p in range(PARTITIONS) for r in left.inbound[p] if r.value in hostile}
    assert hostile
    assert places <= left.quarantined_at().keys()
    assert set(left.quarantined_at().values()) == {1}
    assert not any(left.dead)

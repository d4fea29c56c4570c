import pytest
from everloop_kernel.dead_letters import list_, replay, show
from everloop_kernel.exactly_once import identities

pytestmark = pytest.mark.integration

HEADERS = [("ce_id", b"1"), ("null", None), ("bytes", b"\xff\xfe"), ("everloop-dlq-reason", b"not ours")]


@pytest.fixture
async def dead(stream, running, until):
    """Three dead letters among good records."""
    values = ["a", "poison-1", "b", "poison-2", "poison-3", "c"]
    await stream.send(values, headers=HEADERS)
    async with running(stream.processor()):

        async def three() -> bool:
            return len(await stream.dead()) == 3

        assert await until(three)
    return stream


async def test_dead_letters_keep_bytes_headers_and_reason(dead) -> None:
    """Whoever looks at a dead letter must see what came, where from, and why it was refused."""
    letters = await list_(dead.kafka, dead.group)
    assert {letter.value for letter in letters} == {b"poison-1", b"poison-2", b"poison-3"}
    letter = letters[0]
    assert (letter.reason_code, letter.reason, letter.topic) == ("poison", "it says so", dead.topic)
    assert list(letter.headers) == HEADERS
    assert not letter.replayed
    shown = await show(dead.kafka, dead.group, letter.position)
    assert shown == letter
    assert await show(dead.kafka, dead.group, 10_000) is None


async def test_a_replay_twice_adds_nothing(dead) -> None:
    """Somebody who is unsure whether the command went through must be able to repeat it."""
    before = len(await identities(dead.kafka, dead.topic, lambda record: record.value.decode()))
    first = (await list_(dead.kafka, dead.group))[0].position
    assert await replay(dead.kafka, dead.group, to=first) == 1
    assert await replay(dead.kafka, dead.group) == 2
    assert await replay(dead.kafka, dead.group) == 0
    after = await identities(dead.kafka, dead.topic, lambda record: record.value.decode())
    assert len(after) == before + 3
    assert all(letter.replayed for letter in await list_(dead.kafka, dead.group))


async def test_a_replayed_record_is_the_original(dead) -> None:
    """The stream must not be able to tell a replayed record from one that was sent again."""
    await replay(dead.kafka, dead.group)
    seen = []
    await identities(dead.kafka, dead.topic, lambda record: seen.append(record) or "")
    originals = {r.value: (r.key, r.partition, r.headers) for r in seen if r.value.startswith(b"poison")}
    copies = [(r.value, (r.key, r.partition, r.headers)) for r in seen if r.value.startswith(b"poison")]
    assert len(copies) == 6
    assert all(originals[value] == rest for value, rest in copies)

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from everloop_kernel.dead_letters import DeadLetter, Replayed, dead_letter_topic, list_, replay, show
from everloop_kernel.exactly_once import identities
from everloop_kernel.stream_writer import Output, PartitionWriter

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
    assert await replay(dead.kafka, dead.group, to=first) == Replayed(1, ())
    assert await replay(dead.kafka, dead.group) == Replayed(2, ())
    assert await replay(dead.kafka, dead.group) == Replayed(0, ())
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


async def test_what_nobody_set_aside_does_not_hold_the_others_back(dead) -> None:
    """A stranger's record, or one whose topic is gone, would leave every letter after it unsent for ever."""
    topic = dead_letter_topic(dead.group)
    gone = DeadLetter(_record("a-deleted-topic"), "poison", "it says so").output(dead.group)
    await _write(dead.kafka, [Output(topic, 0, None, b"a stranger's"), gone])
    stranger = (await list_(dead.kafka, dead.group))[-2]
    assert (stranger.topic, stranger.partition) == ("", -1)
    done = await replay(dead.kafka, dead.group)
    assert done == Replayed(3, (stranger.position, stranger.position + 1))
    assert await replay(dead.kafka, dead.group) == Replayed(0, ())
    marked = {letter.position: letter.replayed for letter in await list_(dead.kafka, dead.group)}
    assert marked.pop(stranger.position) is False  # it was passed over, and went nowhere
    assert all(marked.values())


def _record(topic: str) -> ConsumerRecord:
    return ConsumerRecord(topic, 0, 7, 0, 0, None, b"value", None, 0, 5, ())


async def _write(kafka, outputs) -> None:
    writer = PartitionWriter(kafka, "a-stranger", TopicPartition(outputs[0].topic, 0))
    await writer.open()
    await writer.commit(outputs, None, "")
    await writer.close()

"""What a recorder does with messages of every kind."""

import asyncio

import pytest
from everloop_kernel.errors import PermanentError
from everloop_kernel.recorder import Message, Recorder, Subscription

pytestmark = pytest.mark.integration


async def test_odd_headers_reach_the_handler(bench, running, until, record):
    """A null or non-UTF-8 header must not make a whole batch disappear."""
    odd = [("nothing", None), ("bytes", b"\xff\xfe"), ("", b"")]
    seen: list[Message] = []

    async def handler(messages, work):
        seen.extend(messages)
        await record(messages, work)

    async with running(bench.recorder(handler)):
        await bench.send([b"a", None, b"\x00\xff", b""], odd)
        await until(lambda: _applied(bench, 4))
    assert {message.value for message in seen} == {b"a", None, b"\x00\xff", b""}
    assert all(list(message.headers) == odd for message in seen)


async def test_a_sender_cannot_make_the_service_publish(bench, running, until, record):
    """`reply_to` is the sender's word; to follow it would let a stranger write to any topic as us."""
    async with running(bench.recorder(record), bench.relay()):
        await bench.send([b"a"], [("reply_to", bench.target.encode()), ("correlation_id", b"1")])
        await until(lambda: _applied(bench, 1))
        await asyncio.sleep(0.3)
    assert await bench.read(bench.target) == []


async def test_poison_is_set_aside_with_its_bytes(bench, running, until, record):
    """One record that nobody can handle must not stop the others, nor lose its bytes, headers and reason."""

    async def handler(messages, work):
        for message in messages:
            if message.value == b"\xffpoison":
                work.reject(message, "not-json", "it is not JSON")
            else:
                await record([message], work)

    async with running(bench.recorder(handler), bench.relay()):
        await bench.send([b"1", b"\xffpoison", b"2"], [("trace", b"\xfe"), ("none", None)])
        await until(lambda: _records(bench, bench.dead, 1))
        await until(lambda: _applied(bench, 2))
    (letter,) = await bench.read(bench.dead)
    headers = dict(letter.headers)
    assert letter.value == b"\xffpoison"
    assert list(letter.headers[:2]) == [("trace", b"\xfe"), ("none", None)]
    assert headers["everloop-dlq-reason"] == b"not-json"
    assert headers["everloop-dlq-topic"] == bench.source.encode()
    assert headers["everloop-dlq-group"] == bench.group.encode()


async def test_a_permanent_error_costs_one_message(bench, running, until, record):
    """A handler that gives up on one message of a batch must not take the rest of the batch with it."""

    async def handler(messages, work):
        await record(messages, work)
        if any(message.value == b"bad" for message in messages):
            raise PermanentError("no-such-pipeline", "nobody knows it")

    await bench.send([b"1", b"2", b"3", b"4", b"bad", b"6", b"7", b"8", b"9"])
    async with running(bench.recorder(handler), bench.relay()):
        await until(lambda: _applied(bench, 8))
        await until(lambda: _records(bench, bench.dead, 1))
    assert b"bad" not in await bench.applied()
    (letter,) = await bench.read(bench.dead)
    assert dict(letter.headers)["everloop-dlq-reason"] == b"no-such-pipeline"


async def test_what_postgres_cannot_store_is_set_aside(bench, running, until, record):
    """A number out of range in one record must not stop the service at each start."""

    async def handler(messages, work):
        for message in messages:
            await work.connection.execute(
                "INSERT INTO strict VALUES ($1::text::bigint::int)", message.value.decode()
            )
        await record(messages, work)

    await bench.send([b"1", b"99999999999", b"3"])
    async with running(bench.recorder(handler), bench.relay()):
        await until(lambda: _applied(bench, 2))
        await until(lambda: _records(bench, bench.dead, 1))
    (letter,) = await bench.read(bench.dead)
    assert dict(letter.headers)["everloop-dlq-reason"] == b"unstorable"


async def test_a_failing_handler_ends_the_recorder_and_nothing_is_lost(bench, running, until, record):
    """An unexpected error must stop the service visibly, at that record: a later success must not skip it."""

    async def failing(messages, work):
        await record(messages, work)
        if any(message.value == b"5" for message in messages):
            raise KeyError("a bug")

    values = [b"%d" % number for number in range(20)]
    recorder = bench.recorder(failing, max_records=2)
    task = asyncio.create_task(recorder.run())
    await bench.send(values)
    with pytest.raises(KeyError):
        async with asyncio.timeout(30):
            await task
    assert "a bug" in (recorder.not_ready() or "")
    assert b"5" not in await bench.applied()
    async with running(bench.recorder(record)):
        await until(lambda: _applied(bench, 20))
    assert sorted(await bench.applied()) == sorted(values)


async def test_a_pattern_finds_a_new_topic(bench, running, until, record, new_topic):
    """A pipeline created later must be recorded without a restart."""
    recorder = _by_pattern(bench, record, bench.service.replace("_", "-"))
    async with running(recorder):
        topic = await new_topic(f"{bench.service.replace('_', '-')}.one")
        await bench.producer.send_and_wait(topic, b"x")
        await bench.send([b"named"])
        await until(lambda: _applied(bench, 2), 20)
    assert sorted(await bench.applied()) == [b"named", b"x"]


def _by_pattern(bench, record, prefix):
    wanted = Subscription(bench.group, [bench.source], rf"^{prefix}\.[a-z][a-z0-9-]*$", handler=record)
    return Recorder(bench.service, bench.kafka, bench.pool, bench.platform, [wanted])


async def test_many_dead_letters_stop_the_recorder(bench, until):
    """If a producer breaks everything, the platform must stop and say so rather than drain the topic away."""

    async def handler(messages, work):
        for message in messages:
            work.reject(message, "bad", "all are bad")

    bench.platform = bench.platform.model_copy(
        update={"dead_letter_limit_count": 10, "dead_letter_limit_share": 0.5}
    )
    recorder = bench.recorder(handler, max_records=5)
    await bench.send([b"x"] * 100)
    async with asyncio.timeout(30):
        with pytest.raises(Exception, match="EVERLOOP_DEAD_LETTER_LIMIT"):
            await recorder.run()
    assert sum((await bench.offsets()).values()) <= 15


async def _applied(bench, count: int) -> bool:
    return len(await bench.applied()) >= count


async def _records(bench, topic: str, count: int) -> bool:
    return len(await bench.read(topic)) >= count

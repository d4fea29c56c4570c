"""What lag monitors are told, also after an outage."""

from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError
from everloop_kernel.recorder.hints import Hints

A, B = TopicPartition("t", 0), TopicPartition("t", 1)


class Consumer:
    """Commits, unless Kafka is said to be away."""

    def __init__(self) -> None:
        self.away = False
        self.committed: dict[TopicPartition, int] = {}
        self.assigned = {A, B}

    def assignment(self) -> set[TopicPartition]:
        return self.assigned

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        if self.away:
            raise KafkaConnectionError
        assert offsets.keys() <= self.assigned, "Kafka refuses the whole request"
        self.committed |= offsets


async def test_what_an_outage_refused_is_told_again() -> None:
    """`everloop status` and a scaler would see a lag that nobody has, until the next record came."""
    hints, consumer = Hints("g"), Consumer()
    hints.note(A, 5)
    hints.note(B, 7)
    consumer.away = True
    await hints.tell(consumer)
    hints.note(B, 9)
    consumer.away = False
    await hints.tell(consumer)
    assert consumer.committed == {A: 5, B: 9}


async def test_what_another_member_has_now_is_not_told() -> None:
    """One partition too many, and Kafka would refuse the hints of all others for ever."""
    hints, consumer = Hints("g"), Consumer()
    hints.note(A, 5)
    hints.note(B, 7)
    consumer.assigned = {B}
    await hints.tell(consumer)
    assert consumer.committed == {B: 7}


async def test_without_a_consumer_nothing_is_told() -> None:
    hints = Hints("g")
    hints.note(A, 5)
    await hints.tell(None)

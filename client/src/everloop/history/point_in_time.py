"""What was known at a moment: the log up to it, replayed by the evaluator of the stream."""

from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from everloop_features import Compiled, Value, microseconds
from everloop_features.history import PartitionReplay

from everloop.history.log import Entry, Log

__all__ = ["Answers", "Question", "known_values"]


@dataclass(frozen=True, slots=True)
class Question:
    """An observation as it would have come at `at_us` (µs since 1970), with the fields that are given."""

    partition: int
    at_us: int
    event_time_us: int
    fields: dict[str, Any]


async def known_values(log: Log, compiled: Compiled, questions: Sequence[Question]) -> list[list[Value]]:
    """The vector of each question, in their order.

    A partition is known at a moment up to the first record that became known later: what is in the log
    stays where it is, so whatever comes in afterwards changes no answer. Each partition is read once, only as
    far as its last question, in the memory of its state and one page.
    """
    numbered: defaultdict[int, list[int]] = defaultdict(list)
    for number, question in enumerate(questions):
        numbered[question.partition].append(number)
    answers: dict[int, list[Value]] = {}
    for partition, numbers in numbered.items():
        mine = [questions[number] for number in numbers]
        pages = log.pages(partition) if compiled.needs_state else _nothing()
        found = Answers(compiled, mine)
        async with aclosing(pages):
            async for page in pages:
                found.take(page)
                if found.is_complete:
                    break
        answers |= zip(numbers, found.finish(), strict=True)
    return [answers[number] for number in range(len(questions))]


class Answers:
    """The questions about one partition, answered while its log goes by."""

    def __init__(self, compiled: Compiled, questions: Sequence[Question]) -> None:
        self._questions = questions
        self._waiting = deque(sorted(range(len(questions)), key=lambda number: questions[number].at_us))
        self._replay = PartitionReplay(compiled)
        self._answers: dict[int, list[Value]] = {}

    @property
    def is_complete(self) -> bool:
        """Whether nothing further in the log can matter."""
        return not self._waiting

    def take(self, page: Sequence[Entry]) -> None:
        """Go on in the log; a question is answered before the first record that it does not know."""
        begin = 0
        for index, (_, record) in enumerate(page):
            if self._waiting and microseconds(record.known_at) > self._next_us():
                self._replay.advance(page[begin:index])
                begin = index
                self._answer_before(microseconds(record.known_at))
        if self._waiting:
            self._replay.advance(page[begin:])

    def finish(self) -> Iterable[list[Value]]:
        """The log ends here: answer what is left from all of it."""
        while self._waiting:
            self._answer_next()
        return [self._answers[number] for number in range(len(self._questions))]

    def _next_us(self) -> int:
        return self._questions[self._waiting[0]].at_us

    def _answer_before(self, known_us: int) -> None:
        while self._waiting and self._next_us() < known_us:
            self._answer_next()

    def _answer_next(self) -> None:
        number = self._waiting.popleft()
        question = self._questions[number]
        self._answers[number] = self._replay.vector(question.fields, question.event_time_us)


async def _nothing() -> AsyncGenerator[list[Entry], None]:
    """The log of a partition that no feature asks."""
    return
    yield []

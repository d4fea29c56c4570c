"""A request's row is the same however many rows and requests come with it."""

import asyncio

from everloop_features import StateFormatError
from everloop_serving.adapters.lightgbm_engine import Booster, Explainer
from everloop_serving.application.loaded_model import Blueprint, LoadedModel
from everloop_serving.application.models import Choice
from everloop_serving.application.predict import Answer, Predictions
from everloop_serving.application.prediction_events import EventWriter
from everloop_serving.application.slices import SLICE_ROWS
from everloop_serving.application.turn import Turn
from everloop_serving.domain.artifact import read_artifact
from everloop_serving.domain.inputs import Inputs, Row
from everloop_serving.domain.tensors import DATATYPES, InvalidInput, Tensor
from everloop_serving.metrics import HotMetrics
from hypothesis import given, settings
from hypothesis import strategies as st
from integration.serving import deployed_model
from integration.serving.deployed_model import RECORD, artifact, pipeline_named, reference

INPUTS = Inputs.of(pipeline_named("flights"), most_rows=1000)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, 1, -1, 127, 128, 255, 256, 1e9, "EWR", "", "2013-01-01T05:15:00Z", "2013-01-01"]),
)
KINDS = st.sampled_from([*sorted(DATATYPES), "BF16"])


@st.composite
def tensors(draw) -> list[Tensor]:
    """A sound request of one row, some of it replaced."""
    record = {**RECORD, **draw(st.dictionaries(st.sampled_from([*RECORD, "speed"]), VALUES, max_size=2))}
    for name in draw(st.sets(st.sampled_from(sorted(RECORD)), max_size=1)):
        del record[name]
    found = []
    for name, value in record.items():
        usual = deployed_model.DATATYPES.get(name, "BYTES")
        found.append(Tensor(name, draw(st.one_of(st.just(usual), KINDS)), [1], [value]))
    return found


def read(given_tensors: list[Tensor]) -> Row | None:
    try:
        return INPUTS.rows(given_tensors, "a")[0]
    except InvalidInput:
        return None


@settings(max_examples=300, deadline=None)
@given(tensors())
def test_one_row_is_read_like_one_of_two(single: list[Tensor]) -> None:
    """The short way for one row must take what the general way takes, and refuse what it refuses."""
    double = [Tensor(each.name, each.datatype, [2], [*each.data, *each.data]) for each in single]
    one, two = read(single), read(double)
    if one is None or two is None:
        assert one is two
    else:
        assert (one.fields, one.event_time, one.event_time_us) == (
            two.fields,
            two.event_time,
            two.event_time_us,
        )
        assert list(map(type, one.fields.values())) == list(map(type, two.fields.values()))


class State:
    """Feature state in which some keys cannot be read."""

    def __init__(self, blueprint: Blueprint) -> None:
        self._state = blueprint.compiled.new_state(1)
        self.reader = self

    def find(self, index: int, key: tuple) -> object:
        if key[0] == "JFK":
            raise StateFormatError("written by nobody")
        return self._state.find(index, key)

    def __getattr__(self, name: str) -> object:
        return getattr(self._state, name)

    def age_seconds(self) -> float:
        return 1.5


def loaded() -> LoadedModel:
    data = artifact("flights")
    blueprint = Blueprint.of(reference(data, 1), read_artifact(data))
    engine = Booster(blueprint.artifact.model_text)
    return LoadedModel(blueprint, engine, State(blueprint), most_rows=500, explainer=Explainer)


MODEL = loaded()
RECORDS = st.fixed_dictionaries(
    {
        "origin": st.sampled_from(["EWR", "LGA", "JFK"]),
        "distance": st.floats(0, 5000),
        "wind": st.none() | st.floats(0, 80),
    }
)


def outcome(model: LoadedModel, row: Row) -> tuple | type:
    try:
        (values,), (output,) = model.answer([row])
    except StateFormatError:
        return StateFormatError
    return [row.id], [output.hex()], [values]


def plain(got: Answer | Exception) -> tuple | type:
    if isinstance(got, Exception):
        return type(got)
    return got.ids, [output.hex() for output in got.outputs], got.vectors


@settings(max_examples=60, deadline=None)
@given(st.lists(RECORDS, min_size=1, max_size=2 * SLICE_ROWS + 3))
def test_rows_of_one_turn_are_answered_as_if_alone(records: list[dict]) -> None:
    """Who else asks at the same moment must change neither an answer, nor its event, nor its error."""
    events: list = []
    turn = Turn(Predictions(EventWriter("x"), events.append, HotMetrics()))
    rows = [MODEL.inputs.row({**RECORD, **record}, f"r{number}") for number, record in enumerate(records)]

    async def ask_all() -> list[Answer | Exception]:
        answers: list[Answer | Exception] = []
        all_answered = asyncio.Event()

        def done(answer: Answer | Exception) -> None:
            answers.append(answer)
            if len(answers) == len(rows):
                all_answered.set()

        for row in rows:
            turn.ask(Choice(MODEL, "champion", 1.0), row, None, done)
        await all_answered.wait()
        return answers

    got = asyncio.run(ask_all())
    assert [plain(each) for each in got] == [outcome(MODEL, row) for row in rows]
    assert len(events) == sum(isinstance(each, Answer) for each in got)

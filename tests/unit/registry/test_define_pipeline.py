import pytest
from everloop_registry.application.define_pipeline import define_pipeline
from everloop_registry.application.errors import Refused
from everloop_schemas.pipeline import from_definition, load, to_definition

FILE = """
pipeline: p
partition_by: [origin]
observation:
  event_time: at
  fields: {origin: {type: category}, distance: {type: number}}
label:
  type: binary
  fields: {delay: {type: number}}
  value: {late: delay > 15}
"""


class MemoryTopics:
    """Remembers what was ensured, and how many events had been emitted by then."""

    def __init__(self, work) -> None:
        self.work = work
        self.ensured: list[tuple[str, int]] = []

    async def ensure(self, pipeline) -> None:
        self.ensured.append((pipeline.pipeline, len(self.work.emitted)))


@pytest.fixture
def put(work, office):
    topics = MemoryTopics(work)

    async def _put(text: str = FILE):
        pipeline = load(text, "p.yaml")
        assert not isinstance(pipeline, list), pipeline
        return await define_pipeline(pipeline, by="kim", work=work, topics=topics, clock=office.clock)

    _put.topics = topics
    return _put


async def test_topics_exist_before_anyone_hears_of_the_pipeline(put, work) -> None:
    """A consumer that reacts at once would find no topic and fail."""
    await put()
    assert put.topics.ensured == [("p", 0)]
    assert work.names() == ["PipelineDefined"]


async def test_the_same_file_again_changes_nothing(put, work) -> None:
    """`everloop apply` in every deployment must not retrain every model."""
    first = await put()
    again = await put(FILE + "# a comment\n")
    assert (first.created, again.created, again.version.version) == (True, False, 1)
    assert work.names() == ["PipelineDefined"] * 2


async def test_the_same_file_again_tells_whoever_lost_it(put, work) -> None:
    """A damaged topic leaves ingest without the pipeline; what it advises, to apply the file, must help."""
    await put()
    await put()
    first, again = work.emitted
    assert first == again, "the same event under the same id: it is known to all who have it"


async def test_a_changed_definition_is_the_next_version(put, work) -> None:
    await put()
    changed = await put(FILE + "features: {far: distance > 100}\n")
    assert (changed.created, changed.version.version) == (True, 2)
    assert [event.version for _, event in work.emitted] == [1, 2]
    event = work.emitted[1][1]
    assert to_definition(from_definition(event.definition)) == event.definition


@pytest.mark.parametrize("change", ["partitions: 8\n", "partition_by: [origin, distance]\n"])
async def test_what_places_records_cannot_change(put, work, change) -> None:
    """The copies of an id would land on two partitions: duplicates would be counted twice."""
    await put()
    text = FILE.replace("partition_by: [origin]\n", "") if "partition_by" in change else FILE
    with pytest.raises(Refused, match="cannot change"):
        await put(text + change)
    assert work.names() == ["PipelineDefined"]

# ruff: noqa: ASYNC110  # fakes have no event to wait for
"""Which deployments are believed, and what a swap changes: fakes that behave, no Kafka."""

import asyncio
from pathlib import Path

import pytest
from everloop_kernel.stream_writer import Output
from everloop_schemas import cloudevents
from everloop_schemas.events import DeploymentChanged, ModelLoaded, ModelRef
from everloop_serving.adapters.files import DeploymentFiles, ModelCache
from everloop_serving.adapters.lightgbm_engine import Booster, Explainer
from everloop_serving.adapters.lignum_engine import FastTrees
from everloop_serving.adapters.trusted_keys import TrustedKeys
from everloop_serving.application.load_model import ModelLoader
from everloop_serving.application.models import ModelNotReady, Models, UnknownModel
from everloop_serving.application.ports import ModelRefused, NotNow, Trial, Untrusted
from everloop_serving.application.prediction_events import EventWriter
from everloop_serving.application.rollout import Rollout
from everloop_serving.application.swap import Swap
from everloop_serving.domain.model_text import BrokenModel, check_model
from integration.serving.deployed_model import (
    RECORD,
    Signer,
    artifact,
    expected_output,
    packed,
    reference,
    trained_text,
)

NAME = "flights"


class FakeArtifacts:
    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.fetched: list[str] = []

    def add(self, data: bytes, version: int) -> ModelRef:
        made = reference(data, version)
        self.data[made.artifact.sha256] = data
        return made

    async def fetch(self, wanted) -> bytes:
        self.fetched.append(wanted.sha256)
        if wanted.sha256 not in self.data:
            raise NotNow("not there yet")
        return self.data[wanted.sha256]


class FakeSandbox:
    """Checks and answers as the real one does, in this process."""

    async def trial(self, model_text, *, task, features, rows):
        try:
            check_model(model_text, features=features, task=task)
        except BrokenModel as error:
            raise ModelRefused(str(error)) from error
        return Trial(Booster(model_text).predict(rows), "not tried")


class FakeStates:
    def __init__(self) -> None:
        self.kept: set[int] = set()

    async def open(self, pipeline, version, compiled, *, wait):
        return FakeState(compiled.new_state(version))

    def keep_only(self, pipeline, versions) -> None:
        self.kept = versions


class FakeState:
    def __init__(self, state) -> None:
        self.reader = state

    def age_seconds(self) -> float | None:
        return None


class World:
    """Everything around a rollout."""

    def __init__(self, folder: Path) -> None:
        self.signer = Signer()
        self.signer.trust_in(folder / "keys")
        self.folder = folder
        self.artifacts, self.states, self.models = FakeArtifacts(), FakeStates(), Models()
        self.published: list[Output] = []
        loader = ModelLoader(
            self.artifacts, FakeSandbox(), Booster, FastTrees, Explainer, self.states, most_rows=100
        )
        swap = Swap(
            self.models,
            loader,
            states=self.states,
            cache=ModelCache(folder / "models"),
            writer=EventWriter("one"),
            publish=self.published.append,
            expect=lambda name, partitions: None,
            instance="one",
        )
        self.rollout = Rollout(
            self.models,
            swap,
            keys=TrustedKeys(folder / "keys"),
            deployments=DeploymentFiles(folder / "deployments"),
            deployments_read=lambda: True,
        )
        self.task = asyncio.create_task(self.rollout.run())

    def offer(self, deployment: DeploymentChanged) -> None:
        value, headers = cloudevents.encode(deployment, id="d", source="test")
        self.rollout.offer("t", deployment.pipeline.encode(), value, headers)

    async def settled(self) -> None:
        async with asyncio.timeout(10):
            await asyncio.sleep(0.01)
            while self.rollout.not_ready() or not all(w.done() for w in self.rollout._workers.values()):
                await asyncio.sleep(0.01)

    async def deploy(self, deployment: DeploymentChanged) -> None:
        self.offer(deployment)
        await self.settled()

    def champion(self) -> int | None:
        arms = self.models.arms(NAME)
        return arms.champion.model_version if arms and arms.champion else None

    def events(self) -> list[ModelLoaded]:
        return [cloudevents.decode(ModelLoaded, o.value, o.headers) for o in self.published]


@pytest.fixture
async def world(tmp_path: Path):
    made = World(tmp_path)
    yield made
    made.rollout.stop()
    await asyncio.wait_for(made.task, 5)


async def test_a_deployment_is_loaded_and_answers(world: World) -> None:
    """The main path."""
    data = artifact(NAME)
    await world.deploy(world.signer.deployment(NAME, 1, world.artifacts.add(data, 1)))
    model = world.models.choose(NAME, None, "a").model
    [row] = [model.inputs.row(RECORD, "a")]
    assert model.answer([row])[1][0] == expected_output(data, RECORD)
    assert [(event.loaded, event.model_version) for event in world.events()] == [(True, 1)]


async def test_only_a_higher_revision_counts(world: World) -> None:
    """A replayed deployment would bring back a model that was rolled back."""
    first, second = (world.artifacts.add(artifact(NAME, seed=seed), seed) for seed in (1, 2))
    await world.deploy(world.signer.deployment(NAME, 5, second))
    await world.deploy(world.signer.deployment(NAME, 4, first))
    await world.deploy(world.signer.deployment(NAME, 5, first))
    assert world.champion() == 2
    await world.deploy(world.signer.deployment(NAME, 6, first))
    assert world.champion() == 1


async def test_an_unsigned_foreign_or_changed_deployment_is_refused(world: World) -> None:
    """Whoever can write to the topic could serve any model."""
    made = world.artifacts.add(artifact(NAME), 1)
    good = world.signer.deployment(NAME, 1, made)
    for bad in (
        Signer().deployment(NAME, 1, made),
        good.model_copy(update={"signature": ""}),
        good.model_copy(update={"revision": 2}),
        good.model_copy(update={"key_id": "../../../etc/pas"}),
    ):
        await world.deploy(bad)
    world.rollout.offer("t", b"k", b"\xff nonsense", [])
    world.rollout.offer("t", b"k", None, [])
    assert world.models.arms(NAME) is None
    with pytest.raises(UnknownModel):
        world.models.choose(NAME, None, "a")


async def test_a_key_that_is_trusted_later_is_believed_then(world: World) -> None:
    """The registry's key may reach a replica after its first event."""
    other = Signer()
    world.offer(other.deployment(NAME, 1, world.artifacts.add(artifact(NAME), 1)))
    assert world.models.arms(NAME) is None
    other.trust_in(world.folder / "keys")
    world.rollout._review()
    await world.settled()
    assert world.champion() == 1


@pytest.mark.parametrize(
    "broken",
    ["truncated", "golden", "other pipeline", "no tar", "other features", "other pipeline version"],
)
async def test_a_bad_model_is_refused_and_the_old_one_goes_on(world: World, broken: str) -> None:
    """A bad artifact must never answer, and must not take the good one down."""
    await world.deploy(world.signer.deployment(NAME, 1, world.artifacts.add(artifact(NAME), 1)))
    text = trained_text(2, 20, 31).encode()
    data = {
        "truncated": lambda: artifact(NAME, text=text[:3000]),
        "golden": lambda: artifact(NAME, text=text),  # another model under this one's golden predictions
        "other pipeline": lambda: artifact("weather", seed=2),
        "no tar": lambda: b"nothing",
        "other features": lambda: packed({"format": 1}, text),
        "other pipeline version": lambda: artifact(NAME, seed=2, pipeline_version=9),
    }[broken]()
    await world.deploy(world.signer.deployment(NAME, 2, world.artifacts.add(data, 2)))
    assert world.champion() == 1
    last = world.events()[-1]
    assert (last.loaded, last.model_version, last.revision) == (False, 2, 2)
    assert last.error


async def test_a_first_model_that_is_refused_says_why(world: World) -> None:
    """503 with the reason, not 404: the model is deployed."""
    await world.deploy(world.signer.deployment(NAME, 1, world.artifacts.add(b"nothing", 1)))
    with pytest.raises(ModelNotReady, match="refused"):
        world.models.choose(NAME, None, "a")


async def test_the_previous_champion_and_pinned_versions_answer_by_version(world: World) -> None:
    """The demo compares with the first model kept frozen; a rollback needs the previous one at once."""
    one, two, three = (world.artifacts.add(artifact(NAME, seed=seed), seed) for seed in (1, 2, 3))
    await world.deploy(world.signer.deployment(NAME, 1, one))
    await world.deploy(world.signer.deployment(NAME, 2, two, pinned=[one]))
    await world.deploy(world.signer.deployment(NAME, 3, three, pinned=[one]))
    arms = world.models.arms(NAME)
    assert sorted(arms.by_version) == [1, 2, 3]
    choice = world.models.choose(NAME, "1", "a")
    assert (choice.model.model_version, choice.arm, choice.propensity) == (1, "pinned", 1.0)
    assert world.models.choose(NAME, "3", "a").arm == "pinned"
    with pytest.raises(UnknownModel, match="loaded are 1, 2, 3"):
        world.models.choose(NAME, "4", "a")
    with pytest.raises(UnknownModel):
        world.models.choose(NAME, "x", "a")
    fetched = len(world.artifacts.fetched)
    await world.deploy(world.signer.deployment(NAME, 4, two, pinned=[one]))
    assert world.champion() == 2
    assert len(world.artifacts.fetched) == fetched  # a rollback loads nothing
    assert (world.events()[-1].model_version, world.events()[-1].revision) == (2, 4)


async def test_the_challenger_gets_its_share_and_the_same_id_the_same_arm(world: World) -> None:
    """An experiment whose arms change between requests measures nothing."""
    one, two = (world.artifacts.add(artifact(NAME, seed=seed), seed) for seed in (1, 2))
    await world.deploy(world.signer.deployment(NAME, 1, one, challenger=two, challenger_share=0.25))
    choices = [world.models.choose(NAME, None, f"id{number}") for number in range(4000)]
    share = sum(choice.arm == "challenger" for choice in choices) / 4000
    assert 0.22 < share < 0.28
    assert {(c.arm, c.propensity, c.model.model_version) for c in choices} == {
        ("challenger", 0.25, 2),
        ("champion", 0.75, 1),
    }
    assert [world.models.choose(NAME, None, f"id{n}").arm for n in range(50)] == [c.arm for c in choices[:50]]


async def test_a_broken_challenger_does_not_hold_the_champion_back(world: World) -> None:
    """An experiment is less important than the answer."""
    one = world.artifacts.add(artifact(NAME), 1)
    bad = world.artifacts.add(b"nothing", 2)
    await world.deploy(world.signer.deployment(NAME, 1, one, challenger=bad, challenger_share=0.5))
    assert {world.models.choose(NAME, None, f"{n}").arm for n in range(50)} == {"champion"}
    assert world.models.choose(NAME, None, "a").propensity == 1.0


async def test_an_artifact_that_comes_late_is_loaded_then(world: World) -> None:
    """Topics have no common order: the deployment may come before the bytes."""
    data = artifact(NAME)
    made = reference(data, 1)
    world.offer(world.signer.deployment(NAME, 1, made))
    await asyncio.sleep(0.1)
    with pytest.raises(ModelNotReady):
        world.models.choose(NAME, None, "a")
    world.artifacts.add(data, 1)
    await world.settled()
    assert world.champion() == 1
    assert [event.loaded for event in world.events()] == [False, True]


async def test_a_restart_begins_with_what_was_served(tmp_path: Path) -> None:
    """Serving must answer after a restart while Kafka is away; and must not trust its own disk blindly."""
    first = World(tmp_path)
    made = first.artifacts.add(artifact(NAME), 1)
    await first.deploy(first.signer.deployment(NAME, 7, made))
    first.rollout.stop()
    await first.task
    second = World(tmp_path)
    second.artifacts.data = first.artifacts.data
    await second.settled()
    assert second.champion() == 1
    second.rollout.stop()
    await second.task
    saved = tmp_path / "deployments" / f"{NAME}.json"
    saved.write_bytes(saved.read_bytes().replace(b'"revision":7', b'"revision":8'))
    third = World(tmp_path)
    third.artifacts.data = first.artifacts.data
    await asyncio.sleep(0.1)
    assert third.models.arms(NAME) is None
    third.rollout.stop()
    await third.task


def test_keys_are_checked_against_their_names(tmp_path: Path) -> None:
    """A key file that was swapped must not verify under the old key's name."""
    good, bad = Signer(), Signer()
    good.trust_in(tmp_path)
    (tmp_path / f"{good.key_id}.pub").write_text(bad.raw.hex())
    deployment = good.deployment(NAME, 1, None).model_dump(mode="json")
    with pytest.raises(Untrusted, match="another key"):
        TrustedKeys(tmp_path).verify(deployment)
    (tmp_path / f"{good.key_id}.pub").write_text("zz")
    with pytest.raises(Untrusted, match="no Ed25519 key"):
        TrustedKeys(tmp_path).verify(deployment)


def test_a_damaged_cache_file_is_not_used(tmp_path: Path) -> None:
    """Disks rot; the digest is checked at every load."""
    cache = ModelCache(tmp_path)
    sha = reference(b"model", 1).artifact.sha256
    cache.put(sha, b"model")
    assert cache.get(sha) == b"model"
    (tmp_path / sha).write_bytes(b"mode1")
    assert cache.get(sha) is None

"""Damaged and hostile artifacts: none is served in the place of the real one, and serving goes on.

`make bench-mutants` judges 10,000 of them.
"""

import random
from pathlib import Path

import httpx
import pytest
from integration.serving.deployed_model import RECORD, artifact, expected_output, reference
from integration.serving.serving_process import ServingProcess, publish
from mutants import UNFORESEEN, Judge, served_under_digest, served_under_other_key
from mutated_artifacts import mutants

COUNT = 1200


def test_no_mutant_is_taken_for_the_original(tmp_path: Path) -> None:
    """A disk that flips bits, or somebody who can write to it, must not change a decision."""
    original = artifact("flights")
    served = served_under_digest(original, mutants(original, COUNT), tmp_path)
    assert (len(served), served.total()) == (12, 0), "of every kind"


def test_no_mutant_is_believed_that_another_key_has_signed(tmp_path: Path) -> None:
    """Whoever can write to Kafka is not yet the registry."""
    served = served_under_other_key(mutants(artifact("flights"), 120), tmp_path)
    assert (len(served), served.total()) == (12, 0)


def test_what_a_trusted_key_has_signed_does_no_harm() -> None:
    """A trainer with a defect gets a reason, not a serving process that crashes, hangs or stops loading."""
    original = artifact("flights")
    judge = Judge(original)
    verdicts = [judge.verdict(mutant.data) for mutant in mutants(original, COUNT)]
    assert UNFORESEEN not in verdicts
    refused = [verdict for verdict in verdicts if not verdict.startswith("sound")]
    assert set(refused) == {"artifact", "manifest", "structure", "sandbox", "golden predictions"}
    assert len(refused) > 0.8 * len(verdicts)


def asked(serving: ServingProcess, name: str) -> dict:
    return httpx.post(f"{serving.url}/v1/pipelines/{name}/predict", json=RECORD).json()


@pytest.mark.integration
async def test_a_process_that_meets_mutants_serves_on(serving, signer, kafka_settings, unique) -> None:
    """Each is refused or sound; serving answers meanwhile, and a good version still gets through."""
    name = unique("mutants")
    original = artifact(name)
    await publish(kafka_settings, signer.deployment(name, 1, reference(original, 1)), original)
    serving.start()
    serving.wait_for(f"/v2/models/{name}/ready")
    chosen = random.Random(7).sample(list(mutants(original, 600, seed=7)), 24)
    for revision, mutant in enumerate(chosen, 2):
        deployment = signer.deployment(name, revision, reference(mutant.data, revision))
        await publish(kafka_settings, deployment, mutant.data)
        assert "probability" in asked(serving, name)
    last, good = len(chosen) + 2, artifact(name, seed=2)
    await publish(kafka_settings, signer.deployment(name, last, reference(good, last)), good)
    serving.wait_for(f"/v2/models/{name}/versions/{last}/ready")
    answer = asked(serving, name)
    assert (answer["model_version"], answer["probability"]) == (last, expected_output(good, RECORD))
    assert serving.stop() == 0
    assert "Traceback" not in serving.log.read_text()

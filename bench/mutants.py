"""What becomes of 10,000 mutated artifacts: which layer refuses how many, and that none harms serving.

    python bench/mutants.py [--count 10000]

Three entrances. Under the original's digest the bytes do not fit it. Signed by another key the deployment is
not believed. And a mutant that the trusted key has signed meets what is left: the artifact's form, the
manifest, the model's structure, the sandbox (here forked, with the real one's code), the golden predictions.
"""

import argparse
import faulthandler
import hashlib
import os
import resource
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import rig
from everloop_serving.adapters import sandbox_child
from everloop_serving.adapters.files import ModelCache
from everloop_serving.adapters.lightgbm_engine import Booster
from everloop_serving.adapters.lignum_engine import FastTrees
from everloop_serving.adapters.trusted_keys import TrustedKeys
from everloop_serving.application.loaded_model import Blueprint
from everloop_serving.application.ports import ModelRefused, Untrusted
from everloop_serving.domain.artifact import Artifact, BadArtifact, read_artifact
from everloop_serving.domain.model_text import BrokenModel, check_model
from everloop_serving.domain.replay_rows import replay_rows
from mutated_artifacts import Mutant, mutants

sys.path.insert(0, str(rig.ROOT / "tests"))
from integration.serving.deployed_model import Signer, artifact, reference

__all__ = ["UNFORESEEN", "Judge", "served_under_digest", "served_under_other_key"]

NAME = "flights"
SECONDS = 20
UNFORESEEN = "an exception that nobody foresaw"


def served_under_digest(original: bytes, found: Iterator[Mutant], folder: Path) -> Counter[str]:
    """How many mutants the cache gives out as the original, by kind."""
    digest, cache = hashlib.sha256(original).hexdigest(), ModelCache(folder)
    served: Counter[str] = Counter()
    for mutant in found:
        (folder / digest).write_bytes(mutant.data)
        served[mutant.kind] += cache.get(digest) is not None
    return served


def served_under_other_key(found: Iterator[Mutant], folder: Path) -> Counter[str]:
    """How many deployments of mutants are believed that a key signed which nobody trusts, by kind."""
    Signer().trust_in(folder)
    keys, stranger, served = TrustedKeys(folder), Signer(), Counter[str]()
    for mutant in found:
        deployment = stranger.deployment(NAME, 2, reference(mutant.data, 2))
        try:
            keys.verify(msgspec.json.decode(deployment.model_dump_json()))
            served[mutant.kind] += 1
        except Untrusted:
            served[mutant.kind] += 0
    return served


class Judge:
    """What serving's layers say of a mutant whose deployment is signed as it should be."""

    def __init__(self, original: bytes) -> None:
        self._original = read_artifact(original)
        self._rows = replay_rows(self._original.model_text, features=9, rows=500)
        self._answers = Booster(self._original.model_text).predict(self._rows)
        FastTrees(self._original.model_text)  # imported before the forks

    def verdict(self, data: bytes) -> str:
        """The layer that refuses it, what kind of a sound model it is, or what nobody foresaw."""
        try:
            return self._verdict(data)
        except Exception as error:  # noqa: BLE001  (that is the question)
            print(f"unforeseen: {error!r}", file=sys.stderr)
            return UNFORESEEN

    def _verdict(self, data: bytes) -> str:
        try:
            found = read_artifact(data)
            blueprint = Blueprint.of(reference(data, 1), found)
            rows = blueprint.golden_rows()
        except (BadArtifact, ModelRefused) as error:
            return "artifact" if isinstance(error, BadArtifact) else "manifest"
        try:
            check_model(found.model_text, features=len(found.manifest.features), task=found.manifest.task)
        except BrokenModel:
            return "structure"
        tried = _forked(found, rows)
        if tried is None or tried.error is not None:
            return "sandbox"
        try:
            blueprint.check_golden([float.fromhex(output) for output in tried.outputs], "in the sandbox")
        except ModelRefused:
            return "golden predictions"
        return self._sound(found)

    def _sound(self, found: Artifact) -> str:
        if found.model_text == self._original.model_text:
            return "sound: the original's model"
        same = Booster(found.model_text).predict(self._rows) == self._answers
        return "sound: the original's answers" if same else "sound: another model"


def _forked(found: Artifact, rows: list[list[float]]) -> sandbox_child.Verdict | None:
    """The verdict of a child; None when it dies."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _examine(found, rows, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    return msgspec.json.decode(said, type=sandbox_child.Verdict) if os.waitpid(child, 0)[1] == 0 else None


def _examine(found: Artifact, rows: list[list[float]], writing: int) -> None:
    """In the child: never returns."""
    code = 1
    try:
        faulthandler.disable()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        signal.alarm(SECONDS)
        cells = [[float(cell).hex() for cell in row] for row in rows]
        task = sandbox_child.Task(
            len(found.manifest.features), found.manifest.task, fast_engine=True, rows=cells,
            cpu_seconds=SECONDS, memory_bytes=1 << 30,
        )  # fmt: skip
        os.write(writing, msgspec.json.encode(sandbox_child.examine(task, found.model_text)))
        code = 0
    finally:
        os._exit(code)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000)
    count = parser.parse_args().count
    original = artifact(NAME)
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as keys:
        by_digest = served_under_digest(original, mutants(original, count), Path(cache))
        by_key = served_under_other_key(mutants(original, count), Path(keys))
    judge, verdicts = Judge(original), Counter[str]()
    for number, mutant in enumerate(mutants(original, count), 1):
        verdicts[judge.verdict(mutant.data)] += 1
        if not number % 1000:
            print(f"{number} of {count}", flush=True)
    figures = [
        rig.figure(
            "mutants under the original's digest: served", by_digest.total(), "mutants", goal=0, at_most=True
        ),
        rig.figure("mutants signed by another key: served", by_key.total(), "mutants", goal=0, at_most=True),
        rig.figure(
            f"mutants: {UNFORESEEN}",
            verdicts.pop(UNFORESEEN, 0),
            "mutants",
            goal=0,
            at_most=True,
        ),
        *(
            rig.figure(f"mutants signed by the trusted key: {verdict}", number, "mutants")
            for verdict, number in sorted(verdicts.items())
        ),
    ]
    rig.keep("mutants", figures)
    rig.show(figures)


if __name__ == "__main__":
    main()

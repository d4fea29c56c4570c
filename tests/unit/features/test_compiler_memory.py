"""Compiling keeps nothing of its callers."""

import gc
import weakref

from everloop_features import Compiled
from everloop_features import compile as compile_features
from everloop_schemas.pipeline import load

FILE = """
pipeline: pumps
partition_by: [site]
observation:
  event_time: at
  fields: {site: {type: category}, pressure: {type: number}}
label: {type: binary, fields: {failed: {type: boolean}}, value: {failure: failed}}
features: {pressure: pressure}
"""


class ArtifactOfMegabytes:
    """Something in a variable of whoever compiles."""


def test_the_callers_variables_go_with_the_caller() -> None:
    """Errors that were kept with their frames kept 4 MB of each model that serving swapped."""

    def call() -> tuple[Compiled, weakref.ref[ArtifactOfMegabytes]]:
        artifact = ArtifactOfMegabytes()
        compiled = compile_features(load(FILE))
        assert isinstance(compiled, Compiled)
        return compiled, weakref.ref(artifact)

    gc.collect()
    gc.disable()
    try:
        _compiled, artifact = call()
        assert artifact() is None
    finally:
        gc.enable()

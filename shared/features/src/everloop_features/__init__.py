"""The feature language and its one evaluator, for the stream, for serving and for every rebuild.

`compile(pipeline)` checks the expressions. The result computes vectors (`Compiled.vector`) from fields, an
event time and a `State`; a `State` is restored with `load`, and grows by merging an `Overlay`. `replay`
computes the vectors of a whole log partition. `Encoder` turns vectors into a model's numbers.
`compile_rules(pipeline)` checks the rules over several fields of a record.
"""

from everloop_features.calculation import microseconds
from everloop_features.compiler import Compiled, FeatureType, compile  # noqa: A004  # like re.compile
from everloop_features.encoding import Encoder, encode, learn_categories
from everloop_features.nodes import Value
from everloop_features.overlay import Overlay
from everloop_features.packing import StateFormatError, version_of
from everloop_features.records import LogRecord, Record, decode
from everloop_features.replay import Vector, derive, replay
from everloop_features.rules import RecordRules, compile_rules
from everloop_features.state import State, StateReader

__all__ = [
    "Compiled",
    "Encoder",
    "FeatureType",
    "LogRecord",
    "Overlay",
    "Record",
    "RecordRules",
    "State",
    "StateFormatError",
    "StateReader",
    "Value",
    "Vector",
    "compile",
    "compile_rules",
    "decode",
    "derive",
    "encode",
    "learn_categories",
    "microseconds",
    "replay",
    "version_of",
]

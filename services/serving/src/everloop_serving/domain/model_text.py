"""Whether a LightGBM model's text describes whole, finite trees.

LightGBM loads what it is given: a truncated file predicts differently, a bad child index hangs or crashes and
a bad feature index is silently wrong. So the text is checked before LightGBM sees it.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["BrokenModel", "ModelShape", "check_model"]

_END_OF_TREES = b"end of trees"
_END_OF_PARAMETERS = b"end of parameters"
_TREE_STARTS = re.compile(rb"^Tree=(\d+)$", re.MULTILINE)
_CATEGORICAL_BIT = 1
_MISSING_TYPES = (0, 1, 2)
_OBJECTIVES = {"binary": ("binary",), "number": ("regression", "regression_l1", "huber", "fair", "quantile")}
_MOST_TREES = 20_000
_MOST_LEAVES = 131_072
_UINT32 = 2**32


class BrokenModel(ValueError):  # noqa: N818  (a finding about the file, not about the code)
    """The text is not a model that may be loaded; the message says where it breaks."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What a sound model text holds."""

    features: int
    trees: int


def check_model(text: bytes, *, features: int, task: str) -> ModelShape:
    """Check every tree of a LightGBM v4 model text, in time linear in its size.

    `features` is the width the model must have, `task` is `binary` or `number`.

    Raises:
        BrokenModel: with the first thing that is wrong.
    """
    head, trees = _parts(text)
    _check_head(head, features, task)
    sizes = _integers(head, "tree_sizes")
    if len(sizes) != len(trees) or len(trees) > _MOST_TREES:
        raise BrokenModel(f"the header announces {len(sizes)} trees, the text holds {len(trees)}")
    for index, (size, tree) in enumerate(zip(sizes, trees, strict=True)):
        if size != len(tree):
            raise BrokenModel(f"tree {index} has {len(tree)} bytes, the header says {size}")
        _check_tree(_fields(tree, f"tree {index}"), index, features)
    return ModelShape(features=features, trees=len(trees))


def _parts(text: bytes) -> tuple[Mapping[str, str], list[bytes]]:
    """The header's fields and each tree's bytes, from a text that is complete."""
    end = text.find(b"\n" + _END_OF_TREES)
    if not text.startswith(b"tree\n") or end < 0 or text.find(b"\n" + _END_OF_PARAMETERS, end) < 0:
        raise BrokenModel("the text is truncated or no LightGBM model: its end is missing")
    starts = [match.start() for match in _TREE_STARTS.finditer(text, 0, end)]
    if not starts:
        raise BrokenModel("the model holds no tree")
    ends = [*starts[1:], end + 1]
    return _fields(text[: starts[0]], "the header"), [text[a:b] for a, b in zip(starts, ends, strict=True)]


def _fields(block: bytes, where: str) -> Mapping[str, str]:
    try:
        lines = block.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise BrokenModel(f"{where} is not UTF-8") from error
    found: dict[str, str] = {}
    for line in lines:
        name, equals, value = line.partition("=")
        if name in found:
            raise BrokenModel(f"{where} has {name!r} twice")
        if equals:
            found[name] = value
    found["_where"] = where
    return found


def _check_head(head: Mapping[str, str], features: int, task: str) -> None:
    if head.get("version") != "v4":
        raise BrokenModel(f"the model's format is {head.get('version')!r}, not 'v4'")
    for name in ("num_class", "num_tree_per_iteration"):
        if _integers(head, name) != [1]:
            raise BrokenModel(f"{name} is {head.get(name)!r}, not 1: one output per row is served")
    if _integers(head, "max_feature_idx") != [features - 1]:
        raise BrokenModel(
            f"the model has max_feature_idx={head['max_feature_idx']}, the manifest lists {features} features"
        )
    if head.get("objective", "").partition(" ")[0] not in _OBJECTIVES[task]:
        raise BrokenModel(f"the objective {head.get('objective')!r} does not answer a {task} label")


def _check_tree(tree: Mapping[str, str], index: int, features: int) -> None:
    if _integers(tree, "Tree") != [index]:
        raise BrokenModel(f"tree {index} is numbered {tree.get('Tree')!r}")
    leaves, categorical = _count(tree, "num_leaves"), _count(tree, "num_cat")
    if not 1 <= leaves <= _MOST_LEAVES:
        raise BrokenModel(f"{tree['_where']} has num_leaves={leaves}")
    if tree.get("is_linear", "0") != "0":
        raise BrokenModel(f"{tree['_where']} has linear leaves, which are not served")
    _finite(tree, "leaf_value", leaves)
    _finite(tree, "shrinkage", 1)
    if leaves > 1:
        _check_splits(tree, leaves - 1, features, categorical)
        _check_children(tree, leaves)
    elif categorical:
        raise BrokenModel(f"{tree['_where']} has categories and no split")


def _check_splits(tree: Mapping[str, str], splits: int, features: int, categorical: int) -> None:
    """Each split names a feature that exists, a known decision and, if it needs one, a set of categories."""
    thresholds = _numbers(tree, "threshold", splits)
    decisions = _sized(tree, "decision_type", splits)
    for feature in _sized(tree, "split_feature", splits):
        if not 0 <= feature < features:
            raise BrokenModel(f"{tree['_where']} splits on feature {feature} of {features}")
    sets = [t for t, decision in zip(thresholds, decisions, strict=True) if _is_categorical(tree, decision)]
    if sorted(sets) != [float(i) for i in range(categorical)]:
        raise BrokenModel(f"{tree['_where']} does not use each of its {categorical} category sets once")
    if categorical:
        _check_category_sets(tree, categorical)


def _is_categorical(tree: Mapping[str, str], decision: int) -> bool:
    if not 0 <= decision < 1 << 4 or decision >> 2 not in _MISSING_TYPES:
        raise BrokenModel(f"{tree['_where']} has decision_type={decision}")
    return bool(decision & _CATEGORICAL_BIT)


def _check_category_sets(tree: Mapping[str, str], sets: int) -> None:
    bounds = _sized(tree, "cat_boundaries", sets + 1)
    if bounds[0] != 0 or any(low >= high for low, high in pairwise(bounds)):
        raise BrokenModel(f"{tree['_where']} has cat_boundaries that do not rise from 0")
    if not all(0 <= word < _UINT32 for word in _sized(tree, "cat_threshold", bounds[-1])):
        raise BrokenModel(f"{tree['_where']} has a cat_threshold outside 32 bits")


def _check_children(tree: Mapping[str, str], leaves: int) -> None:
    """Every node but the root, and every leaf, is the child of exactly one node, which stands before it.

    LightGBM numbers a node when it splits it, so a child's number is above its parent's: no cycles.
    """
    seen: set[int] = set()
    splits = leaves - 1
    left, right = _sized(tree, "left_child", splits), _sized(tree, "right_child", splits)
    for node in range(splits):
        for child in (left[node], right[node]):
            if not (node < child < splits or -leaves <= child < 0):
                raise BrokenModel(f"{tree['_where']}: node {node} has child {child} of {splits} nodes")
            if child in seen:
                raise BrokenModel(f"{tree['_where']}: {child} is the child of two nodes")
            seen.add(child)


def _integers(fields: Mapping[str, str], name: str) -> list[int]:
    try:
        return [int(word) for word in fields[name].split()]
    except (KeyError, ValueError) as error:
        raise BrokenModel(f"{fields['_where']}: {name} is missing or no list of whole numbers") from error


def _sized(fields: Mapping[str, str], name: str, size: int) -> list[int]:
    found = _integers(fields, name)
    if len(found) != size:
        raise BrokenModel(f"{fields['_where']}: {name} has {len(found)} numbers, not {size}")
    return found


def _count(fields: Mapping[str, str], name: str) -> int:
    return _sized(fields, name, 1)[0]


def _finite(fields: Mapping[str, str], name: str, size: int) -> list[float]:
    found = _numbers(fields, name, size)
    if not all(map(math.isfinite, found)):
        raise BrokenModel(f"{fields['_where']}: {name} holds a number that is not finite")
    return found


def _numbers(fields: Mapping[str, str], name: str, size: int) -> list[float]:
    """Numbers, infinite ones among them: a split between present and missing values has the threshold inf."""
    try:
        found = [float(word) for word in fields[name].split()]
    except (KeyError, ValueError) as error:
        raise BrokenModel(f"{fields['_where']}: {name} is missing or no list of numbers") from error
    if len(found) != size or any(map(math.isnan, found)):
        raise BrokenModel(f"{fields['_where']}: {name} does not hold {size} numbers")
    return found

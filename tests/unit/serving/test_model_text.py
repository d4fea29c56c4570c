"""LightGBM loads broken model files without a word; the check before it must not."""

import re

import lightgbm
import numpy as np
import pytest
from everloop_serving.domain.model_text import BrokenModel, check_model
from integration.serving.deployed_model import trained_text

FEATURES = 9


def text() -> bytes:
    return trained_text(1, 20, 31).encode()


def edit(field: str, change, tree: int = 3) -> bytes:
    """The model with one field's numbers changed in one tree, and sizes that fit again."""
    head, *trees = re.split(rb"(?=^Tree=)", text(), flags=re.MULTILINE)
    lines = trees[tree].split(b"\n")
    at = next(i for i, line in enumerate(lines) if line.startswith(field.encode() + b"="))
    numbers = lines[at].split(b"=")[1].split()
    lines[at] = field.encode() + b"=" + b" ".join(change(numbers))
    trees[tree] = b"\n".join(lines)
    end = trees[-1].index(b"end of trees")
    sizes = [len(t) for t in trees[:-1]] + [end]
    head = re.sub(rb"tree_sizes=.*", b"tree_sizes=" + " ".join(map(str, sizes)).encode(), head)
    return head + b"".join(trees)


def at(index: int, value: str):
    return lambda numbers: [*numbers[:index], value.encode(), *numbers[index + 1 :]]


def check(model: bytes) -> None:
    check_model(model, features=FEATURES, task="binary")


def test_a_sound_model_passes() -> None:
    """A check that refuses good models stops every rollout."""
    shape = check_model(text(), features=FEATURES, task="binary")
    assert (shape.features, shape.trees) == (9, 20)
    check(edit("leaf_value", at(0, "0.5")))  # an edit alone is not what is refused


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_a_truncated_file_is_refused(share: float) -> None:
    """LightGBM loads half a file and predicts something else."""
    whole = text()
    with pytest.raises(BrokenModel):
        check(whole[: int(len(whole) * share)])


@pytest.mark.parametrize(
    ("field", "index", "value", "says"),
    [
        ("left_child", 2, "0", "child 0"),  # a cycle: LightGBM would hang
        ("left_child", 2, "2", "child 2"),
        ("right_child", 0, "30", "child 30"),  # no such node
        ("right_child", 0, "-32", "child -32"),  # no such leaf
        ("right_child", 0, "-1", "two nodes"),
        ("split_feature", 0, "9", "feature 9"),
        ("split_feature", 0, "-1", "feature -1"),
        ("split_feature", 0, "x", "whole numbers"),
        ("threshold", 0, "nan", "numbers"),
        ("leaf_value", 0, "inf", "finite"),
        ("leaf_value", 0, "nan", "numbers"),
        ("decision_type", 0, "64", "decision_type=64"),
        ("decision_type", 0, "14", "decision_type=14"),
        ("num_leaves", 0, "30", "does not hold 30"),
        ("num_leaves", 0, "0", "num_leaves=0"),
        ("num_leaves", 0, "99999999999", "num_leaves"),
        ("cat_boundaries", 1, "0", "rise"),
        ("cat_threshold", 0, "4294967296", "32 bits"),
        ("is_linear", 0, "1", "linear"),
        ("shrinkage", 0, "", "shrinkage"),
        ("Tree", 0, "7", "numbered"),
    ],
)
def test_a_broken_tree_is_refused(field: str, index: int, value: str, says: str) -> None:
    """A bad index makes LightGBM hang, crash or answer nonsense in the serving process."""
    with pytest.raises(BrokenModel, match=re.escape(says)):
        check(edit(field, at(index, value)))


def test_a_shorter_array_is_refused() -> None:
    """LightGBM reads beyond the end of an array that is too short."""
    for field in ("split_feature", "threshold", "left_child", "right_child", "leaf_value", "decision_type"):
        with pytest.raises(BrokenModel):
            check(edit(field, lambda numbers: numbers[:-1]))


def test_a_missing_or_repeated_tree_is_refused() -> None:
    """One tree less still loads, and every prediction is a little wrong."""
    head, *trees = re.split(rb"(?=^Tree=)", text(), flags=re.MULTILINE)
    for broken in ([*trees[:5], *trees[6:]], [*trees[:5], trees[4], *trees[5:]]):
        with pytest.raises(BrokenModel):
            check(head + b"".join(broken))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"version=v4", b"version=v3"),
        (b"num_class=1", b"num_class=3"),
        (b"num_tree_per_iteration=1", b"num_tree_per_iteration=2"),
        (b"max_feature_idx=8", b"max_feature_idx=80"),
        (b"objective=binary", b"objective=multiclass"),
        (b"objective=binary", b"objective=regression"),
        (b"tree_sizes=", b"tree_sizes=7 "),
        (b"tree\n", b"bush\n"),
        (b"Tree=1\n", b"Tree=1\nnum_leaves=31\n"),
        (b"end of parameters", b"\xff\xfe"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(old: bytes, new: bytes) -> None:
    """A model of another kind or width answers something, but not this question."""
    with pytest.raises(BrokenModel):
        check(text().replace(old, new, 1))


def test_trees_without_a_split_and_regressions_pass() -> None:
    """A model on constant labels is one leaf a tree; a number label is a regression."""
    matrix = np.random.default_rng(0).random((50, FEATURES))
    data = lightgbm.Dataset(matrix, np.zeros(50))
    booster = lightgbm.train({"objective": "regression", "verbose": -1}, data, 2)
    model = booster.model_to_string().encode()
    assert check_model(model, features=FEATURES, task="number").trees >= 1
    with pytest.raises(BrokenModel):
        check_model(model, features=FEATURES, task="binary")

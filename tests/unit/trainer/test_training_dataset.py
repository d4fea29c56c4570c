import dataclasses
import hashlib
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from everloop_trainer.domain.comparison import MINIMUM_COMPARED_ROWS
from everloop_trainer.domain.dataset import Column, Labels, Retractions, assemble, from_values
from everloop_trainer.domain.digest import dataset_sha256
from everloop_trainer.domain.records import Records, retractions_among
from everloop_trainer.domain.retracted import RETRACTED
from everloop_trainer.domain.seen import seen_rows
from everloop_trainer.domain.split import split, split_by_time
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

sys.path.insert(0, str(Path(__file__).parent))
from trainer_data import HOUR, IDENTITY, START, dataset, labels, vectors

EVERYTHING = {0: 10**6, 1: 10**6, 2: 10**6}
SIX_HUNDRED = dataset(600)


def test_nothing_above_the_cut_is_in_the_dataset():
    """A model that saw rows beyond its cut could not be rebuilt, nor be trusted in an audit."""
    cut = {0: 20, 1: 11, 2: 0}
    made = assemble(IDENTITY, vectors(300), labels(300), cut, 0)
    assert made.rows == 10 + 5
    assert all(offset + 1 < cut[p] for p, offset in zip(made.partition, made.offset, strict=True))


def test_the_order_in_which_rows_were_stored_does_not_matter():
    """Two trainers that read segments in different orders must train the same model."""
    given, told = vectors(200), labels(200)
    mixed = np.random.default_rng(5).permutation(200)
    shuffled = dataclasses.replace(
        given,
        ids=[given.ids[i] for i in mixed],
        partition=given.partition[mixed],
        offset=given.offset[mixed],
        event_time=given.event_time[mixed],
        known_at=given.known_at[mixed],
        columns=tuple(column.take(mixed) for column in given.columns),
    )
    one, other = (assemble(IDENTITY, some, told, EVERYTHING, 0) for some in (given, shuffled))
    assert dataset_sha256(one) == dataset_sha256(other)


def test_the_latest_known_label_wins_and_a_null_outcome_leaves_the_row_out():
    """A corrected outcome must replace the first one; a cancelled flight is neither late nor on time."""
    told = labels(10)
    corrected = Labels(
        [*told.ids, "r3", "r4"],
        np.r_[told.partition, 0, 0],
        np.r_[told.offset, 100, 102],
        np.r_[told.event_time, START, START],
        np.r_[told.known_at, told.known_at.max() + 1, START],
        np.r_[told.value, np.nan, 1 - told.value[4]],
    )
    made = assemble(IDENTITY, vectors(10), corrected, EVERYTHING, 0)
    assert "r3" not in made.ids
    assert made.target[made.ids.index("r4")] == told.value[4]


def test_rows_older_than_the_window_are_left_out():
    """A window of 180 days that kept older rows would teach yesterday's world."""
    made = assemble(IDENTITY, vectors(100), labels(100), EVERYTHING, START + 5 * HOUR)
    assert made.rows == 50
    assert made.event_time[0] == START + 5 * HOUR


def test_a_repeated_observation_id_gives_one_row():
    """Two sources that use the same id must not train on one label twice."""
    given = vectors(50)
    doubled = dataclasses.replace(
        given, ids=["same" if i in {10, 20} else x for i, x in enumerate(given.ids)]
    )
    told = dataclasses.replace(labels(50), ids=doubled.ids)
    assert assemble(IDENTITY, doubled, told, EVERYTHING, 0).ids.count("same") == 1


def withdrawing(*entries):
    """Retractions: (id, partition, offset, known_at) each."""
    ids, *places = zip(*entries, strict=True)
    return Retractions(list(ids), *(np.array(numbers, dtype=np.int64) for numbers in places))


def test_a_retracted_observation_is_no_row_from_its_cut_on():
    """What is withdrawn must not be learnt from; what was learnt before its cut can still be rebuilt."""
    given, told = vectors(30), labels(30)
    known = int(told.known_at.max()) + 1
    gone = withdrawing(("r3", 0, 100, known), ("nobody", 1, 100, known), ("r7", 2, 100, known))
    made = assemble(IDENTITY, given, told, EVERYTHING, 0, retractions=gone)
    assert sorted(set(given.ids) - set(made.ids)) == ["r3", "r7"]
    before = assemble(IDENTITY, given, told, {0: 100, 1: 100, 2: 100}, 0, retractions=gone)
    assert dataset_sha256(before) == dataset_sha256(assemble(IDENTITY, given, told, EVERYTHING, 0))


def test_an_observation_published_again_after_its_retraction_stands():
    """A correction: withdrawn, sent anew, joined with the outcome that was known already."""
    given, told = vectors(30), labels(30)
    known = int(told.known_at.max()) + 1
    again = dataclasses.replace(
        given,
        ids=[*given.ids, "r3"],
        partition=np.r_[given.partition, 0],
        offset=np.r_[given.offset, 101],
        event_time=np.r_[given.event_time, given.event_time[3]],
        known_at=np.r_[given.known_at, known],
        columns=tuple(column.take(np.r_[np.arange(30), 4]) for column in given.columns),
    )
    made = assemble(IDENTITY, again, told, EVERYTHING, 0, retractions=withdrawing(("r3", 0, 100, known)))
    row = made.ids.index("r3")
    assert made.ids.count("r3") == 1
    assert (made.offset[row], made.target[row]) == (101, told.value[3])


def test_retractions_stand_among_the_labels_of_the_log():
    """They travel as labels without a value, and must never pass for an outcome."""
    numbers = np.arange(3, dtype=np.int64)
    entries = Records(["a", "b", "c"], numbers, numbers, numbers, numbers, ["{}", RETRACTED, '{"x":1}'])
    gone, told = retractions_among(entries)
    assert (gone.ids, gone.offset.tolist()) == (["b"], [1])
    assert (told.ids, told.fields) == (["a", "c"], ["{}", '{"x":1}'])


def test_the_digest_is_of_the_documented_bytes():
    """An auditor with another program must get the same number: here by the format's text alone."""
    made = assemble(IDENTITY, vectors(6), labels(6), EVERYTHING, 0)
    assert dataset_sha256(made) == by_the_book(made)


def by_the_book(made):
    def text(value):
        return (
            b"\xff\xff\xff\xff" if value is None else struct.pack("<I", len(value.encode())) + value.encode()
        )

    header = {
        "columns": [["wind", "number"], ["wet", "boolean"], ["carrier", "category"]],
        "format": 1,
        "pipeline": "flights",
        "pipeline_sha256": "0" * 64,
        "pipeline_version": 1,
        "rows": 6,
    }
    data = text(json.dumps(header, sort_keys=True, separators=(",", ":")))
    data += b"".join(map(text, made.ids))
    for numbers in (made.partition, made.offset, made.event_time, made.label_event_time, made.label_known_at):
        data += struct.pack("<6q", *numbers)
    for numbers in (made.target, made.columns[0].values, made.columns[1].values):
        data += b"".join(
            bytes.fromhex("000000000000f87f") if np.isnan(x) else struct.pack("<d", x) for x in numbers
        )
    data += b"".join(map(text, made.columns[2].values))
    return hashlib.sha256(data).hexdigest()


def test_the_digest_does_not_depend_on_the_process():
    """A hash that changed with PYTHONHASHSEED would make every verification fail."""
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from trainer_data import dataset;"
        "from everloop_trainer.domain.digest import dataset_sha256; print(dataset_sha256(dataset(500)))"
    )
    seeds = [{"PYTHONHASHSEED": seed} for seed in ("1", "2")]
    digests = {subprocess.check_output([sys.executable, "-c", script], env=seed) for seed in seeds}
    assert digests == {f"{dataset_sha256(dataset(500))}\n".encode()}


@pytest.mark.parametrize("change", ["target", "event_time", "label_known_at", "offset"])
def test_any_change_of_content_changes_the_digest(change):
    """A dataset that was tampered with must not keep its name."""
    made = dataset(100)
    altered = getattr(made, change).copy()
    altered[50] += 1
    assert dataset_sha256(dataset(100, **{change: altered})) != dataset_sha256(made)


def test_null_and_the_empty_text_differ():
    """Categories '' and null are different values; so are their digests."""
    null, empty = (dataset(3, columns=(Column("c", "category", ["a", value, "b"]),)) for value in (None, ""))
    assert dataset_sha256(null) != dataset_sha256(empty)


def test_columns_from_json_values():
    """Null is NaN for numbers and None for categories, as in training."""
    number, flag, category = from_values(
        ["n", "f", "c"], ["number", "boolean", "category"], [[1, True, "x"], [None, None, None]]
    )
    np.testing.assert_array_equal(number.values, [1.0, np.nan])
    np.testing.assert_array_equal(flag.values, [1.0, np.nan])
    assert category.values == ["x", None]


def test_test_rows_are_newer_than_all_that_trained():
    """A random split would let a model see the future of its test rows."""
    made = dataset(1000)
    parts = split(made, 0.2, None, 100)
    assert len(parts.test) == 200
    assert parts.test[0] == 800
    assert made.label_known_at[parts.train].max() <= made.event_time[parts.test].min()
    assert parts.embargo == "known_at"
    assert not parts.comparable


def test_outcomes_known_after_the_test_began_do_not_train():
    """A label that arrived during the test period was not there when that period was predicted."""
    made = dataset(1000)
    assert (
        len(split(made, 0.2, None, 100).train) == 791
    )  # an hour before the test: 10 rows, one of them just in time


def test_history_loaded_at_once_is_split_by_the_labels_own_time():
    """A first bulk load, where everything became known today, must still be trainable."""
    loaded = dataset(1000, label_known_at=np.full(1000, START * 2))
    parts = split(loaded, 0.2, None, 100)
    assert parts.embargo == "event_time"
    assert len(parts.train) == 791


def test_the_champion_is_only_judged_on_rows_it_has_not_seen():
    """A champion that is compared on its own training rows looks too good, and nothing replaces it."""
    made = dataset(1000)
    seen = np.arange(1000) < 700
    parts = split(made, 0.5, seen, 100)
    assert parts.comparable
    assert parts.test[0] == 700
    assert not split(made, 0.5, np.arange(1000) < 801, 100).comparable


def test_a_newer_row_that_the_champion_has_seen_bars_no_comparison():
    """One live observation among loaded history must not block every later promotion."""
    made = dataset(1000)
    seen = (np.arange(1000) < 700) | (np.arange(1000) == 999)
    parts = split(made, 0.5, seen, 100)
    assert parts.comparable
    assert parts.test.tolist() == list(range(700, 999))
    assert made.label_known_at[parts.train].max() <= made.event_time[700]


@given(
    seen=arrays(bool, 600),
    share=st.floats(0.01, 0.5),
    minimum_rows=st.integers(1, 500),
)
def test_no_row_that_the_champion_has_seen_judges_and_none_trains_that_is_newer(seen, share, minimum_rows):
    """Whatever order history and live rows came in: a comparison on known rows would be a lie."""
    parts = split(SIX_HUNDRED, share, seen, minimum_rows)
    assert len(parts.test)
    assert parts.train.max(initial=-1) < parts.test[0]
    assert (np.diff(parts.test) > 0).all()
    if parts.comparable:
        assert not seen[parts.test].any()
        assert len(parts.test) >= MINIMUM_COMPARED_ROWS
    else:
        assert parts.test[-1] == 599


def test_where_few_of_the_newest_rows_are_unseen_older_unseen_ones_judge_too():
    """A tenth of a thousand rows is too few to compare on, however many more the champion has not seen."""
    made = dataset(1000)
    parts = split(made, 0.1, np.arange(1000) < 600, 100)
    assert parts.comparable
    assert parts.test.tolist() == list(range(800, 1000))


def test_old_history_that_comes_late_leaves_nothing_to_train_on_and_is_not_judged_by():
    """Rows older than all others may be unseen: a model of what is older still would know nothing."""
    made = dataset(1000)
    parts = split(made, 0.2, np.arange(1000) >= 250, 100)
    assert not parts.comparable
    assert parts.test.tolist() == list(range(800, 1000))


def test_what_a_model_has_seen_goes_by_its_cut_and_by_id():
    """Rows without a label at its cut are new to it; a revised label or an observation sent again is not."""
    given, told = vectors(12, partitions=1), labels(12, partitions=1)
    made = assemble(IDENTITY, given, told, {0: 100}, 0)
    assert seen_rows(made, given, told, {0: 6}).tolist() == [True] * 3 + [False] * 9
    assert seen_rows(made, given, told, {0: 5}).tolist() == [True] * 2 + [False] * 10
    assert not seen_rows(made, given, told, {}).any()
    revised = dataclasses.replace(
        told,
        ids=[*told.ids, "r1"],
        partition=np.r_[told.partition, 0],
        offset=np.r_[told.offset, 50],
        event_time=np.r_[told.event_time, START],
        known_at=np.r_[told.known_at, told.known_at.max() + 1],
        value=np.r_[told.value, 1.0],
    )
    again = assemble(IDENTITY, given, revised, {0: 100}, 0)
    assert seen_rows(again, given, revised, {0: 6}).tolist() == [True] * 3 + [False] * 9


def test_jobs_that_name_no_cut_are_split_as_they_were():
    """A model made by an earlier release must still be rebuilt to the byte."""
    made = dataset(1000)
    parts = split_by_time(made, 0.5, int(made.event_time[699]), 100)
    assert (parts.comparable, int(parts.test[0])) == (True, 700)
    parts = split_by_time(made, 0.1, int(made.event_time[599]), 100)
    assert (parts.comparable, int(parts.test[0])) == (True, 900)
    assert not split_by_time(made, 0.5, int(made.event_time[801]), 100).comparable

import sys
from pathlib import Path

import numpy as np
import pytest
from everloop_trainer.domain.bootstrap import blocks, win_share
from everloop_trainer.domain.dataset import Column
from everloop_trainer.domain.evaluation import MAXIMUM_SLICES, Contest, evaluate
from everloop_trainer.domain.metrics import score, weighted_auc

sys.path.insert(0, str(Path(__file__).parent))
from trainer_data import HOUR, START

DAY = 24 * HOUR


def contest(n=2000, skill=0.3, seed=3):
    random = np.random.default_rng(seed)
    truth = (random.random(n) < 0.4).astype(float)
    better = np.clip(0.4 + skill * (truth - 0.4) + random.normal(size=n) * 0.02, 0.01, 0.99)
    worse = np.clip(0.4 + random.normal(size=n) * 0.02, 0.01, 0.99)
    return Contest(truth, better, worse, np.full(n, 0.4))


def days(n=2000, of=100):
    return blocks(START + np.arange(n) // of * DAY)


def test_metrics_agree_with_their_definitions():
    """A gate that reads a wrong number approves the wrong model."""
    truth, output = np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.8, 0.4, 0.4, 0.1])
    expected = -np.mean(np.log([0.8, 0.6, 0.4, 0.9]))
    assert score("log_loss", truth, output) == pytest.approx(expected)
    assert score("brier", truth, output) == pytest.approx(np.mean([0.04, 0.16, 0.36, 0.01]))
    assert score("auc", truth, output) == pytest.approx((2 + 1.5) / 4)
    assert score("mae", truth, output) == pytest.approx(np.mean([0.2, 0.4, 0.6, 0.1]))
    assert score("rmse", truth, output) == pytest.approx(np.sqrt(np.mean([0.04, 0.16, 0.36, 0.01])))


def test_auc_equals_the_share_of_ordered_pairs():
    """By weights and with ties, as the bootstrap uses it."""
    random = np.random.default_rng(0)
    truth = (random.random(60) < 0.5).astype(float)
    output = random.integers(0, 8, 60) / 8
    weights = random.integers(0, 3, 60).astype(float)
    pairs = [
        (weights[i] * weights[j], (output[i] > output[j]) + 0.5 * (output[i] == output[j]))
        for i in range(60)
        for j in range(60)
        if truth[i] == 1 and truth[j] == 0
    ]
    expected = sum(w * won for w, won in pairs) / sum(w for w, _ in pairs)
    assert weighted_auc(truth, output, weights[None])[0] == pytest.approx(expected)


def test_a_certain_and_wrong_probability_costs_much_but_not_infinitely():
    """One output of exactly 0 must not turn all evidence into infinity."""
    assert 30 < score("log_loss", np.array([1.0]), np.array([0.0])) < 40


@pytest.mark.parametrize("name", ["log_loss", "brier", "auc"])
def test_a_clearly_better_candidate_wins_and_the_reverse_loses(name):
    """Confidence is what keeps a lucky model out of production."""
    c = contest()
    assert win_share(name, c.truth, c.candidate, c.champion, by=days(), seed=1) > 0.99
    assert win_share(name, c.truth, c.champion, c.candidate, by=days(), seed=1) < 0.01


@pytest.mark.parametrize("name", ["log_loss", "auc"])
def test_a_model_does_not_beat_itself(name):
    """The same model trained twice must not replace itself over and over."""
    c = contest()
    assert win_share(name, c.truth, c.candidate, c.candidate, by=days(), seed=1) == 0.5


def test_confidence_comes_from_days_not_from_rows():
    """One extraordinary day among twenty is no proof, however many rows it has."""
    c = contest(skill=0.0)
    lucky = c.champion.copy()
    lucky[:100] = c.truth[:100] * 0.9 + 0.05
    share = win_share("log_loss", c.truth, lucky, c.champion, by=days(), seed=1)
    assert share < 0.9


def test_the_same_seed_draws_the_same_days():
    """Evidence that changed from process to process could not be verified."""
    c = contest(skill=0.01)
    first, second, other = (
        win_share("brier", c.truth, c.candidate, c.champion, by=days(), seed=s) for s in (1, 1, 2)
    )
    assert first == second
    assert 0 < abs(first - other) < 0.2 or first in {0.0, 1.0}


@pytest.mark.parametrize(
    ("step", "unit"), [(DAY // 10, "day"), (HOUR // 20, "hour"), (HOUR // 1200, "minute"), (0, None)]
)
def test_a_short_test_period_is_cut_into_shorter_blocks(step, unit):
    """A stream of a thousand records a minute has no eight days to offer."""
    by = blocks(START + np.arange(1000) * step)
    assert (by.unit if by else None) == unit


def test_slices_show_where_a_model_is_worse_than_its_average():
    """A model that fails one airport is seen, even where the mean looks fine."""
    c = contest(400)
    airport = Column("origin", "category", ["EWR" if i % 2 else "JFK" for i in range(400)])
    many = Column("dest", "category", [f"D{i % (MAXIMUM_SLICES + 1)}" for i in range(400)])
    number = Column("wind", "number", np.zeros(400))
    loss, _, auc = evaluate("binary", c, (airport, many, number), days(400, 40), 1)
    assert [(s.feature, s.value, s.rows) for s in loss.slices] == [
        ("origin", "EWR", 200),
        ("origin", "JFK", 200),
    ]
    assert loss.candidate == pytest.approx(np.mean([s.candidate for s in loss.slices]))
    assert auc.slices == []


def test_without_a_champion_its_evidence_is_absent():
    """A gate that asks for a champion must not find a number that means nothing."""
    c = contest(400)
    alone = Contest(c.truth, c.candidate, None, c.prior)
    assert all(
        m.champion is None and m.better_than_champion_confidence is None
        for m in evaluate("binary", alone, (), days(400, 40), 1)
    )


def test_a_test_period_of_one_class_has_no_auc():
    """NaN is no evidence, and no JSON."""
    c = Contest(np.zeros(20), np.full(20, 0.2), None, np.full(20, 0.1))
    assert [m.name for m in evaluate("binary", c, (), None, 1)] == ["log_loss", "brier"]

"""Drawing again what a judge rejects: which draw a row comes from, what the judges say, and how often."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ltstore.errors import ConfigError, DataError
from ltstore.linear import gda
from ltstore.neighbors import ExactIndex
from ltstore.rows import ArrayRows, class_counts
from ltstore.sampling import (
    AcceptingSampler,
    LinearJudge,
    NearestJudge,
    acceptance_rates,
    balance_targets,
    make_sampler,
)
from ltstore.stats import class_moments
from support.tail_rows import fitted, made_rows


class Above:
    """Passes rows whose first feature is above a bound; `None` passes none."""

    name = "above"

    def __init__(self, bound):
        self.bound = bound

    @property
    def settings(self):
        return {"bound": self.bound}

    def fit(self, rows, moments):
        return self

    def __call__(self, X, class_id):
        return X[:, 0] > self.bound if self.bound is not None else np.zeros(len(X), bool)


ROWS = made_rows()
N = 400


def accepting(bound, max_draws=5, rows=ROWS, name="kde"):
    return fitted(AcceptingSampler(make_sampler(name), Above(bound), max_draws), rows)[0]


def plain(rows=ROWS, name="kde"):
    return fitted(make_sampler(name), rows)[0]


@pytest.mark.parametrize("epoch", [0, 2])
def test_a_row_is_the_first_accepted_of_its_attempts_else_the_last(epoch):
    bound = float(np.median(plain().sample(1, 0, N, seed=3).X[:, 0]))
    sampler, inner, judge = accepting(bound, 3), plain(), Above(bound)
    found = sampler.sample(1, 0, N, seed=3, epoch=epoch)
    attempts = sampler.attempts(1, 0, N, seed=3, epoch=epoch)
    draws = [inner.sample(1, 0, N, seed=3, epoch=3 * epoch + a) for a in range(3)]
    passed = np.stack([judge(draw.X, 1) for draw in draws])
    expected = np.where(passed.any(axis=0), passed.argmax(axis=0), 2)
    for i in range(N):
        for field in ("X", "labels", "parent_ids", "donor_ids"):
            np.testing.assert_array_equal(getattr(found, field)[i], getattr(draws[expected[i]], field)[i])
    np.testing.assert_array_equal(attempts, np.where(passed.any(axis=0), expected + 1, 0))
    assert (attempts == 0).mean() == pytest.approx(1 / 8, abs=0.07)


def test_who_accepts_all_changes_nothing_and_who_accepts_none_keeps_the_last():
    np.testing.assert_array_equal(
        accepting(-1e9).sample(0, 5, 50, seed=1).X, plain().sample(0, 5, 50, seed=1).X
    )
    last = plain().sample(0, 5, 50, seed=1, epoch=4).X
    np.testing.assert_array_equal(accepting(None).sample(0, 5, 50, seed=1).X, last)
    np.testing.assert_array_equal(
        accepting(None, 1).sample(0, 5, 50, seed=1).X, plain().sample(0, 5, 50, seed=1).X
    )


def test_rejected_rows_far_apart_are_drawn_apart():
    """The 99th percentile: a few rejected rows of a thousand, so that only runs around them are drawn again."""
    drawn = []
    inner = plain()
    bound = float(np.quantile(inner.sample(0, 0, 1000, seed=0).X[:, 0], 0.01))
    sampler = accepting(bound)
    real = sampler._inner.sample
    sampler._inner.sample = lambda c, a, b, **how: drawn.append(b - a) or real(c, a, b, **how)
    found = sampler.sample(0, 0, 1000, seed=0)
    assert drawn[0] == 1000
    assert sum(drawn[1:]) < 300
    assert (found.X[:, 0] > bound).mean() > 0.999


def test_settings_say_who_accepts():
    sampler = accepting(1.5, 4)
    assert sampler.name == "kde"
    assert sampler.settings["accept"] == {"judge": "above", "max_draws": 4, "bound": 1.5}
    assert {k: v for k, v in sampler.settings.items() if k != "accept"} == dict(plain().settings)


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match="max_draws must be an integer"):
        AcceptingSampler(make_sampler("kde"), Above(0), 0)
    for k in (0, 2):
        with pytest.raises(ConfigError, match="k must be"):
            NearestJudge(k)
    for judge in (NearestJudge(), LinearJudge("gda", gda)):
        with pytest.raises(DataError, match="has not been fitted"):
            judge(np.zeros((1, 3), np.float32), 0)
    with pytest.raises(ConfigError, match="epoch"):
        accepting(0.0).sample(0, 0, 1, seed=0, epoch=-1)
    with pytest.raises(DataError, match="has not been fitted"):
        AcceptingSampler(make_sampler("kde"), Above(0)).sample(0, 0, 1, seed=0)


def blobs(counts=(60, 40, 7, 2, 1), d=5, seed=2):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    X = 1.5 * rng.normal(size=(len(counts), d))[labels] + rng.normal(size=(len(labels), d))
    return ArrayRows(X, labels, normalize=True)


def judged(judge, rows):
    return judge.fit(rows, class_moments(rows, rank=2))


@pytest.mark.parametrize("k", [1, 3, 5])
def test_nearest_is_the_majority_of_the_nearest(k):
    rows = blobs()
    judge, counts = judged(NearestJudge(k), rows), class_counts(rows)
    X = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    for c in range(5):
        used = min(k, 2 * int(counts[c]) - 1)
        ids, _ = ExactIndex(rows).search(X, used)
        expected = (rows.labels[ids] == c).sum(axis=1) > used / 2
        np.testing.assert_array_equal(judge(X, c), expected)


def test_the_linear_judge_passes_what_its_head_predicts():
    rows = blobs()
    judge = judged(LinearJudge("gda", gda), rows)
    head = gda(class_moments(rows, rank=2))
    X = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    predicted = (X @ head.weight.T + head.bias).argmax(axis=1)
    for c in range(5):
        np.testing.assert_array_equal(judge(X, c), predicted == c)


def shuffled_head(moments):
    """Two classes whose weights are one vector in two orders: rows of equal features tie, to rounding."""
    weight = np.random.default_rng(1).normal(size=97)
    return np.stack([weight, weight[::-1]]), np.zeros(2)


@pytest.mark.parametrize("judge", [NearestJudge(1), LinearJudge("shuffled", shuffled_head)])
def test_a_judge_says_the_same_of_a_row_alone_and_among_others(judge):
    """On ties above all, where rounding decides: the second class has the first one's features in another order."""
    rng = np.random.default_rng(0)
    one = rng.normal(size=(50, 97))
    rows = ArrayRows(np.concatenate([one, one[:, ::-1]]), np.repeat([0, 1], 50))
    judge = judged(judge, rows)
    X = (rng.random((700, 1)) * np.ones(97)).astype(np.float32)
    X[600:] = rng.normal(size=(100, 97))
    whole = judge(X, 0)
    alone = np.concatenate([judge(X[i : i + 1], 0) for i in range(700)])
    sevens = np.concatenate([judge(X[a : a + 7], 0) for a in range(0, 700, 7)])
    np.testing.assert_array_equal(whole, alone)
    np.testing.assert_array_equal(whole, sevens)


def test_unlabelled_rows_do_not_vote():
    X = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    rows = ArrayRows(X, [0, -1, 1], class_names="ab")
    judge = judged(NearestJudge(1), rows)
    assert judge(np.array([[0.9, 0.1]], np.float32), 0).tolist() == [True]
    assert judge(np.array([[0.1, 0.9]], np.float32), 0).tolist() == [False]


@pytest.mark.parametrize("judge", ["gda", "nearest"])
def test_accepted_rows_lie_more_in_their_class(judge):
    rows = blobs((80, 60, 8, 6, 5))
    made = NearestJudge() if judge == "nearest" else LinearJudge("gda", gda)
    sampler = fitted(AcceptingSampler(make_sampler("neighbor-gauss"), made), rows)[0]
    inner = plain(rows, "neighbor-gauss")
    for c in (2, 3, 4):
        before, after = (made(each.sample(c, 0, 200, seed=0).X, c).mean() for each in (inner, sampler))
        assert after > min(
            1.5 * before, 0.9
        )  # a small class may hardly ever have a majority: not that all pass


def test_rates_are_counted_on_a_bounded_sample():
    bound = float(np.median(plain().sample(2, 0, 74, seed=0).X[:, 0]))
    sampler, counts = accepting(bound, 2), class_counts(ROWS)
    targets = balance_targets(counts)
    assert targets.tolist() == [0, 20, 74, 79]
    rates = acceptance_rates(sampler, targets, counts, seed=0, max_rows=1000)
    np.testing.assert_array_equal(rates.n_rows, targets)
    assert rates.accepted_first[2] == 0.5
    assert rates.accepted[2] == pytest.approx(0.75, abs=0.12)
    assert rates.kept_rejected[2] == round(74 * (1 - rates.accepted[2]))
    assert np.isnan(rates.accepted[0])
    found = json.loads(json.dumps(rates.to_json(), allow_nan=False))
    assert found["groups"]["few"]["n_rows"] == 153
    assert [each["class_id"] for each in found["classes"]] == [1, 2, 3]
    assert acceptance_rates(sampler, targets, counts, seed=0, max_rows=10).n_rows.sum() == 10

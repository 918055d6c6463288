"""A backtest hides what it judges on, estimates what it says, and chooses by the rule it states."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltstore.backtest import (
    Candidate,
    Card,
    Member,
    Trial,
    blend_heads,
    default_candidates,
    plan_trials,
    run_backtest,
)
from ltstore.backtest.card import judge
from ltstore.backtest.plan import LEAST_HIDDEN
from ltstore.errors import ConfigError, DataError
from ltstore.linear.objective import EMPTY_CLASS_BIAS
from ltstore.rows import ArrayRows

SIZES = (80, 60, 45, 40, 30, 25, 9, 7, 5, 3, 2, 1)


def made(sizes: tuple[int, ...] = SIZES, n_features: int = 12, spread: float = 0.8) -> ArrayRows:
    rng = np.random.default_rng(4)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    centres = rng.standard_normal((len(sizes), n_features))
    X = centres[labels] + spread * rng.standard_normal((len(labels), n_features))
    return ArrayRows(X, labels, class_names=[f"c{c}" for c in range(len(sizes))], normalize=True)


@given(
    st.lists(st.integers(0, 120), min_size=6, max_size=30),
    st.integers(0, 1 << 30),
    st.sampled_from([2, 4]),
    st.sampled_from([10, 100]),
)
def test_a_plan_hides_what_it_judges_on(sizes: list[int], seed: int, n_trials: int, cap: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat([*range(len(sizes)), -1], [*sizes, 5]))
    try:
        trials = plan_trials(labels, len(sizes), n_trials=n_trials, seed=seed, rows_per_class=cap)
    except DataError as err:
        assert "backtest needs" in str(err)  # noqa: PT017
        return
    counts = np.array(sizes)
    for number, trial in enumerate(trials):
        assert len(np.intersect1d(trial.train, trial.judge)) == 0
        assert (labels[trial.train] >= 0).all()
        np.testing.assert_array_equal(np.bincount(labels[trial.train], minlength=len(sizes)), trial.shots)
        judged = np.bincount(labels[trial.judge], minlength=len(sizes))
        large = trial.cut | trial.kept
        assert not (trial.cut & trial.kept).any()
        assert (judged[large] >= LEAST_HIDDEN).all()
        assert not judged[~large].any()
        assert (trial.shots <= np.minimum(counts, cap)).all()
        assert (trial.shots[counts > 0] > 0).all()
        smallest = counts[(counts > 0) & ~large].max(initial=1)
        assert (trial.shots[trial.cut] <= smallest).all()
        if number % 2:
            np.testing.assert_array_equal(trial.cut, trials[number - 1].kept)
    again = plan_trials(labels, len(sizes), n_trials=n_trials, seed=seed, rows_per_class=cap)
    for one, other in zip(trials, again, strict=True):
        np.testing.assert_array_equal(one.train, other.train)


def test_a_plan_of_many_classes_takes_some() -> None:
    sizes = np.concatenate([np.full(300, 30), np.full(300, 4)])
    labels = np.repeat(np.arange(600), sizes)
    (trial, _) = plan_trials(labels, 600, n_trials=2, max_classes=50)
    assert len(np.unique(labels[trial.train])) == 50
    assert np.count_nonzero(trial.cut | trial.kept) == 25


@pytest.mark.parametrize(
    "sizes, message",
    [((20,) * 8, "long tail"), ((30, 20, 10, 2, 2, 2), "4 classes of 10 rows"), ((), "long tail")],
)
def test_what_cannot_be_backtested(sizes: tuple[int, ...], message: str) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    with pytest.raises(DataError, match=message):
        plan_trials(labels, len(sizes))
    with pytest.raises(DataError, match="pairs"):
        plan_trials(np.repeat(np.arange(12), SIZES), 12, n_trials=3)


def two_trials() -> list[Trial]:
    cut, kept = np.array([1, 1, 0, 0, 0], bool), np.array([0, 0, 1, 1, 0], bool)
    shots = np.array([5, 5, 200, 50, 3])
    nothing = np.zeros(0, np.int64)
    return [
        Trial(train=nothing, judge=nothing, cut=cut, kept=kept, shots=shots),
        Trial(train=nothing, judge=nothing, cut=kept, kept=cut, shots=shots[[2, 3, 0, 1, 4]]),
    ]


def judged(accuracy: dict[str, Any], n_head: int = 1, n_tail: int = 3) -> Card:
    members = {
        "la": Member(),
        "ce": Member(loss="ce"),
        "gda": Member(head="gda"),
        "ridge": Member(head="ridge"),
    }
    return judge(
        [Candidate(members=(members[name],)) for name in accuracy],
        np.array(list(accuracy.values()), float),
        two_trials(),
        n_head=n_head,
        n_tail=n_tail,
        rows_digest="d",
        rows_per_class=1,
        seed=0,
        seconds=0.0,
    )


def test_scores_by_hand() -> None:
    nan = np.nan
    card = judged(
        {
            "la": [[0.2, 0.4, 0.9, 0.7, nan], [0.8, 0.6, 0.3, 0.1, nan]],
            "ce": [[0.0, 0.2, 1.0, 1.0, nan], [1.0, 1.0, 0.1, 0.1, nan]],
        }
    )
    la = next(each for each in card.results if each.candidate.name == "la")
    assert la.head == pytest.approx(0.75)  # 0.9 0.7 0.8 0.6
    assert la.tail == pytest.approx(0.25)
    assert la.score == pytest.approx(0.25 * 0.75 + 0.75 * 0.25)
    assert (la.few, la.medium, la.many) == pytest.approx((0.25, (0.7 + 0.6) / 2, (0.9 + 0.8) / 2))
    ce = next(each for each in card.results if each.candidate.name == "ce")
    assert ce.gain == pytest.approx(0.25 * 0.25 + 0.75 * (0.1 - 0.25))
    kept, cut = np.array([0.2, 0.4, 0.1, 0.3]), np.array([-0.2, -0.2, -0.2, 0.0])  # by class
    error = np.sqrt(4 * (0.25 * kept / 4 + 0.75 * cut / 4).var(ddof=1))
    assert ce.behind_error == pytest.approx(error)
    assert ce.gain_high - ce.gain == pytest.approx(3.182 * error, rel=1e-3)  # t of three degrees of freedom
    assert card.choice.candidate.name == "la"
    assert card.reason.endswith("its best lean")


def leaning(accuracy: dict[tuple[str, float], Any], n_trials: int = 2) -> Card:
    """A card of bases and leans: "la", "gda", and "both", their blend."""
    la, gda = Member(), Member(head="gda")
    bases = {"la": (la,), "gda": (gda,), "both": (la, gda)}
    return judge(
        [Candidate(members=bases[base], posthoc_tau=tau) for base, tau in accuracy],
        np.array(list(accuracy.values()), float),
        two_trials(),
        n_head=2,
        n_tail=2,
        rows_digest="d",
        rows_per_class=1,
        seed=0,
        seconds=0.0,
    )


def both_trials(head: tuple[float, float], tail: tuple[float, float]) -> list[list[float]]:
    """Accuracy in `two_trials`: the same in both, of two kept and two cut classes."""
    return [[*tail, *head, np.nan], [*head, *tail, np.nan]]


def test_the_widest_blend_is_left_only_for_what_is_surely_better() -> None:
    la, blend = both_trials((0.8, 0.8), (0.4, 0.4)), both_trials((0.8, 0.82), (0.42, 0.4))
    unsure, sure = both_trials((0.78, 0.88), (0.38, 0.48)), both_trials((0.9, 0.92), (0.52, 0.5))
    card = leaning({("la", 0.0): la, ("gda", 0.0): unsure, ("both", 0.0): blend})
    assert card.results[0].candidate.name == "gda"
    assert card.results[0].gain > 0.02
    assert card.choice.candidate.name == "la + gda"
    assert card.reason == "no other base is ahead of the widest by 3.2 standard errors; its best lean"
    card = leaning({("la", 0.0): la, ("gda", 0.0): sure, ("both", 0.0): blend})
    assert card.choice.candidate.name == "gda"
    assert card.reason == "its base is ahead of the widest by more than 3.2 standard errors; its best lean"


def test_the_best_of_more_bases_must_be_surer() -> None:
    """Ahead by 2.8 standard errors over four classes, where one other base needs 2.4, and one of two 3.2."""
    blend, ahead = both_trials((0.8, 0.8), (0.4, 0.4)), both_trials((0.9, 0.823), (0.5, 0.423))
    one = leaning({("la", 0.0): ahead, ("both", 0.0): blend})
    assert 2.4 < one.results[1].behind / one.results[1].behind_error < 3.2
    assert one.choice.candidate.name == "la"
    two = leaning({("la", 0.0): ahead, ("gda", 0.0): blend, ("both", 0.0): blend})
    assert two.choice.candidate.name == "la + gda"


def test_of_leans_that_cannot_be_told_apart_the_best_tail_is_chosen() -> None:
    upright = both_trials((0.9, 0.8), (0.4, 0.5))
    a_little = both_trials((0.84, 0.82), (0.43, 0.5))  # as good: of one class better, of the other worse
    surely_worse = both_trials(
        (0.8, 0.7), (0.46, 0.56)
    )  # the tail up by less than the head is down, in each class
    too_far = both_trials((0.5, 0.4), (0.6, 0.7))
    leans = {
        ("both", 0.0): upright,
        ("both", 0.125): a_little,
        ("both", 0.25): surely_worse,
        ("both", 0.5): too_far,
    }
    card = leaning({("la", 0.0): upright, **leans})
    assert card.results[0].candidate.base in ("la", "la + gda")
    assert card.choice.candidate.name == "la + gda, lean 0.125"
    assert card.reason.endswith("the best tail among 2 leans that cannot be told apart")
    # A base that is not chosen does not lend its leans.
    card = leaning({("la", 0.0): upright, **leans, ("gda", 0.5): both_trials((0.85, 0.8), (0.9, 0.2))})
    assert card.choice.candidate.name == "la + gda, lean 0.125"


def test_candidates_that_dropped_out_are_compared_where_they_ran() -> None:
    nan = np.nan
    card = judged(
        {
            "la": [[0.2, 0.4, 0.9, 0.7, nan], [0.0, 0.0, 0.0, 0.0, nan]],
            "ce": [[0.3, 0.5, 1.0, 0.8, nan], [nan] * 5],
        }
    )
    ce = next(each for each in card.results if each.candidate.name == "ce")
    assert ce.n_trials == 1
    assert ce.gain == pytest.approx(0.1)


def test_a_card_is_read_back() -> None:
    card = run_backtest(made(), candidates=default_candidates(["duplicate"]), n_trials=2)
    again = Card.from_json(json.loads(json.dumps(card.to_json())))
    assert again == card
    assert again.choice.candidate == card.choice.candidate
    for bad in (
        {},
        {**card.to_json(), "chosen": 10**6},
        {**card.to_json(), "results": [{}]},
        {**card.to_json(), "x": 1},
    ):
        with pytest.raises(ConfigError, match=r"card|candidate"):
            Card.from_json(bad)


def test_the_estimate_is_near_the_truth() -> None:
    """Accuracy over cut classes estimates what the small classes get: here on rows of their own."""
    rng = np.random.default_rng(2)
    sizes = np.concatenate([np.full(20, 60), np.full(20, 6)])
    centres = rng.standard_normal((40, 10))

    def draw(n: Any) -> tuple[Any, Any]:
        labels = np.repeat(np.arange(40), n)
        return centres[labels] + 0.9 * rng.standard_normal((len(labels), 10)), labels

    X, labels = draw(sizes)
    rows = ArrayRows(X, labels, class_names=[str(c) for c in range(40)], normalize=True)
    card = run_backtest(rows, candidates=[Candidate(members=(Member(),))], n_trials=4)
    from ltstore.linear import TrainSettings, train_linear
    from ltstore.stats import class_moments
    from ltstore.stream import TrainingStream

    model = train_linear(TrainingStream(rows), TrainSettings(), class_moments(rows)).model
    Xt, yt = draw(np.full(40, 50))
    Xt = (Xt / np.linalg.norm(Xt, axis=1, keepdims=True)).astype(np.float32)
    right = (Xt @ model.weight.T + model.bias).argmax(axis=1) == yt
    assert abs(card.results[0].tail - right[yt >= 20].mean()) < 0.08
    assert abs(card.results[0].head - right[yt < 20].mean()) < 0.08


def test_leaning_moves_accuracy_to_the_tail() -> None:
    rows = made((60,) * 12 + (6,) * 12)
    card = run_backtest(rows, candidates=default_candidates(["neighbor-gauss"]), n_trials=2)
    by_name = {each.candidate.name: each for each in card.results}
    assert by_name["la, lean 0.5"].tail >= by_name["la"].tail >= by_name["ce"].tail
    assert by_name["la, lean 0.5"].head <= by_name["la"].head
    assert by_name["la"].gain == 0
    again = run_backtest(rows, candidates=default_candidates(["neighbor-gauss"]), n_trials=2)
    assert [each.score for each in again.results] == [each.score for each in card.results]


def test_far_candidates_leave_after_the_first_pair() -> None:
    rng = np.random.default_rng(0)
    sizes = np.concatenate([np.full(16, 40), np.full(16, 3)])
    labels = np.repeat(np.arange(32), sizes)
    X = rng.standard_normal((32, 8))[labels] + 0.7 * rng.standard_normal((len(labels), 8))
    rows = ArrayRows(X, labels, class_names=[str(c) for c in range(32)], normalize=True)
    steps: list[int] = []
    card = run_backtest(rows, n_trials=4, progress=lambda n, _: steps.append(n))
    ran = {each.candidate.base: each.n_trials for each in card.results}
    assert ran["la"] == 4
    assert min(ran.values()) == 2


def test_a_blend_is_the_mean_of_logits_of_equal_spread() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 4)).astype(np.float32)
    a = rng.standard_normal((3, 4)), rng.standard_normal(3)
    b = 10 * rng.standard_normal((3, 4)), rng.standard_normal(3)
    weight, bias = blend_heads([a, b], X)
    spread = [float((X @ w.T.astype(np.float32) + c).std(axis=1).mean()) for w, c in (a, b)]
    expected = spread[0] * np.mean(
        [(X @ w.T + c) / s for (w, c), s in zip((a, b), spread, strict=True)], axis=0
    )
    np.testing.assert_allclose(X @ weight.T + bias, expected, rtol=1e-5, atol=1e-5)
    assert blend_heads([a], X) is a
    gone = a[0], np.array([0.0, EMPTY_CLASS_BIAS, 0.0])
    assert blend_heads([gone, b], X)[1][1] == EMPTY_CLASS_BIAS


def test_a_head_of_huge_logits_does_not_make_leans_void() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 4)).astype(np.float32)
    a = rng.standard_normal((3, 4)), rng.standard_normal(3)
    weight, bias = blend_heads([a, (1000 * a[0], 1000 * a[1])], X)
    np.testing.assert_allclose(weight, a[0], rtol=1e-6)
    np.testing.assert_allclose(bias, a[1], rtol=1e-6)


def test_candidates_that_make_no_sense_are_refused() -> None:
    for bad in (
        {"head": "tree"},
        {"sampler": "nosuch"},
        {"head": "gda", "sampler": "duplicate"},
        {"loss": "hinge"},
        {"max_ratio": 2.0},
        {"sampler_settings": {"nu": 5.0}},
        {"head": "gda", "implicit": 1.0},
        {"implicit": -1.0},
    ):
        with pytest.raises(ConfigError):
            Member(**bad)
    with pytest.raises(ConfigError, match="needs candidates"):
        run_backtest(made(), candidates=[])


def test_settings_of_members_tell_candidates_apart() -> None:
    drawn = {"sampler": "neighbor-gauss"}
    members = (
        Member(**drawn),
        Member(**drawn, sampler_settings={"pull": 0.0}),
        Member(**drawn, max_ratio=1.0),
        Member(implicit=5.0),
        Member(loss="ce"),
    )
    names = [Candidate(members=(member,)).name for member in members]
    assert names[1:] == [
        "neighbor-gauss (pull 0.0)",
        "neighbor-gauss (max_ratio 1.0)",
        "la (implicit 5.0)",
        "ce",
    ]
    card = run_backtest(made(), candidates=[Candidate(members=(member,)) for member in members], n_trials=2)
    by_name = {each.candidate.name: each for each in card.results}
    assert by_name["neighbor-gauss"].gain == 0
    # Each was trained as it says: four settings, and not one of them scored as another.
    assert len({(each.head, each.tail) for each in card.results}) == len(members)
    assert Card.from_json(json.loads(json.dumps(card.to_json()))).choice == card.choice


def test_the_broad_blend_has_what_samplers_are_asked_for() -> None:
    widest = max(default_candidates(), key=lambda each: len(each.members))
    assert widest.base == "la + implicit + neighbor-gauss + residual-transfer + kde + gda"
    some = max(default_candidates(["duplicate", "kde"]), key=lambda each: len(each.members))
    assert some.base == "la + implicit + kde + gda"
    names = [each.name for each in default_candidates()]
    assert len(set(names)) == len(names)

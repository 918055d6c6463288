"""vmf against Wood's algorithm, as scipy has it, and against its formulas."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ive
from scipy.stats import ks_2samp, kstest, vonmises_fisher

from ltstore.rows import ArrayRows, normalize_rows
from ltstore.sampling.cosine_law import CosineLaw
from ltstore.sampling.vmf import VmfSampler, VmfSettings, concentration
from support.tail_rows import fitted, made_rows, of_class


def resultant(d, kappa):
    """Mean resultant length: I_{d/2}(kappa) / I_{d/2 - 1}(kappa), by its continued fraction where both underflow."""
    if d < 100:
        return ive(d / 2, kappa) / ive(d / 2 - 1, kappa)
    ratio = np.zeros_like(kappa)
    for i in range(20_000, -1, -1):
        ratio = 1 / ((d + 2 * i) / kappa + ratio)
    return ratio


LAWS = [(2, 0.0), (2, 3.0), (2, 1e4), (3, 0.0), (3, 2.0), (3, 1e5), (5, 0.1), (64, 30.0), (512, 1500.0)]


@pytest.mark.parametrize("d, kappa", LAWS)
def test_the_table_is_exact(d, kappa):
    """The mean cosine over even quantiles is the ratio of Bessel functions; the midpoint rule errs by 1e-7."""
    quantiles = (np.arange(20_000) + 0.5) / 20_000
    theta = CosineLaw(kappa, d).angles(quantiles)
    expected = resultant(d, kappa) if kappa else 0.0
    assert np.cos(theta).mean() == pytest.approx(expected, abs=1e-7 + 1e-5 * (1 - expected))
    assert (np.diff(theta) > 0).all()


@pytest.mark.parametrize(
    "d, kappa", [(2, 1.3), (3, 40.0), (7, 5.0), (64, 0.5), (64, 300.0), (3, 0.0), (4, 0.01)]
)
def test_the_distribution_function_is_inverted(d, kappa):
    from scipy.integrate import quad

    u = np.array([1e-12, 1e-6, 0.01, 0.3, 0.5, 0.9, 1 - 1e-6, 1 - 1e-12])
    theta = CosineLaw(kappa, d).angles(u)
    peak = kappa * np.cos(theta[4]) + (d - 2) * np.log(np.sin(theta[4]))

    def g(t):
        return np.exp(kappa * np.cos(t) + (d - 2) * np.log(np.maximum(np.sin(t), 1e-300)) - peak)

    def area(a, b):
        return quad(
            g, a, b, epsabs=0, epsrel=1e-11, points=[theta[4]] if a < theta[4] < b else None, limit=400
        )[0]

    total = area(0, np.pi)
    for wanted, t in zip(u, theta, strict=True):
        assert area(0, t) / total == pytest.approx(wanted, rel=1e-6, abs=1e-11)


@pytest.mark.parametrize("u", [2.0**-53, 1 - 2.0**-53])
@pytest.mark.parametrize("d, kappa", [*LAWS, (2048, 1e9), (2, 1e12), (2, np.inf), (1, 0.5)])
def test_the_ends_of_the_law_are_finite(d, kappa, u):
    theta = CosineLaw(kappa, d).angles(np.array([u]))
    assert np.isfinite(theta).all()
    assert (theta >= 0).all()
    assert (theta <= np.pi).all()


def sampler_with(direction, kappa):
    """A vmf sampler of one class with a law of our choice."""
    d = len(direction)
    rows = ArrayRows(np.eye(d)[:2], [0, 0], normalize=True)
    sampler, _, _ = fitted(VmfSampler(), rows)
    sampler._directions, sampler._kappa = direction[None], np.array([kappa])
    return sampler


@pytest.mark.parametrize("d, kappa", [(2, 4.0), (3, 0.7), (8, 20.0), (64, 200.0)])
def test_rows_have_the_law_of_woods_algorithm(d, kappa):
    direction = normalize_rows(np.random.default_rng(d).normal(size=(1, d)).astype(np.float32))[0].astype(float)
    direction /= np.linalg.norm(direction)
    X = sampler_with(direction, kappa).sample(0, 0, 8000, seed=4).X.astype(np.float64)
    wood = vonmises_fisher(direction, kappa).rvs(8000, random_state=np.random.default_rng(1))
    np.testing.assert_allclose(np.linalg.norm(X, axis=1), 1, atol=1e-6)
    assert ks_2samp(X @ direction, wood @ direction).pvalue > 0.005
    along = np.linalg.norm(X.mean(axis=0))
    assert along == pytest.approx(resultant(d, kappa), abs=4 / np.sqrt(8000))
    # The tangent is uniform: its coordinates in any fixed frame have the law of Wood's, and mean 0.
    frame = np.linalg.svd(np.eye(d) - np.outer(direction, direction))[0][:, : d - 1]
    ours, theirs = X @ frame, wood @ frame
    ours /= np.linalg.norm(ours, axis=1, keepdims=True)
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    assert (np.abs(ours.mean(axis=0)) < 5 / np.sqrt(8000 * (d - 1))).all()
    np.testing.assert_allclose(ours.T @ ours / 8000 * (d - 1), np.eye(d - 1), atol=0.12)
    for column in range(min(d - 1, 3)):
        assert ks_2samp(ours[:, column], theirs[:, column]).pvalue > 0.001
    # and independent of the cosine
    assert np.abs(np.corrcoef(X @ direction, ours[:, 0])[0, 1]) < 0.05


@pytest.mark.parametrize("d", [2, 3, 16, 512])
def test_concentration_inverts_the_resultant_length(d):
    rho = np.linspace(0.02, 0.99, 30)
    found = resultant(d, concentration(rho**2, d))
    np.testing.assert_allclose(found, rho, rtol=0.02 if d < 16 else 0.006)
    np.testing.assert_array_equal(concentration(np.array([-0.2, 0.0, 1.0, 1.1]), d), [0, 0, np.inf, np.inf])


def test_the_mean_cosine_is_unbiased_where_the_plain_one_is_not():
    """At n = 2 the plain R gives a kappa of more than twice the true one, the unbiased rho^2 averages out."""
    kappa, d = 60.0, 32
    X = (
        vonmises_fisher(np.eye(d)[0], kappa)
        .rvs(4000, random_state=np.random.default_rng(0))
        .reshape(2000, 2, d)
    )
    plain = np.square(X.mean(axis=1)).sum(axis=1)
    unbiased = 2 * plain - 1
    rho = resultant(d, kappa)
    assert unbiased.mean() == pytest.approx(rho**2, abs=0.01)
    assert concentration(np.array([plain.mean()]), d)[0] > 2 * kappa
    assert concentration(np.array([unbiased.mean()]), d)[0] == pytest.approx(kappa, rel=0.05)


def test_direction_and_concentration_are_those_of_the_formulas():
    rows = made_rows((80, 60, 6, 1), normalize=True)
    nu, w, pull_rows = 7.0, 0.6, 3.0
    settings = VmfSettings(nu=nu, donor_share=w, pull=0.5, pull_rows=pull_rows)
    sampler, moments, donors = fitted(VmfSampler(settings), rows)
    classes = [of_class(rows, c) for c in range(4)]

    def square(X):  # mean cosine of two different rows, pair by pair
        gram = X @ X.T
        return (gram.sum() - np.trace(gram)) / (len(X) * (len(X) - 1))

    pooled = 1 - sum((len(X) - 1) * (1 - square(X)) for X in classes if len(X) > 1) / (
        sum(map(len, classes)) - 4
    )
    for c in (2, 3):
        X = classes[c]
        n = len(X)
        lent = sum(
            weight * square(classes[h])
            for h, weight in zip(donors.class_ids[c], donors.weights[c], strict=True)
            if h >= 0
        )
        own = (n - 1) * square(X) if n > 1 else 0.0
        shrunk = (own + nu * (w * lent + (1 - w) * pooled)) / (n - 1 + nu)
        rho = np.sqrt(shrunk)
        assert sampler._kappa[c] == pytest.approx(rho * (6 - shrunk) / (1 - shrunk), rel=1e-4)
        toward = donors.weights[c] @ moments.means[np.maximum(donors.class_ids[c], 0)]
        mean = X.mean(axis=0) + 0.5 * pull_rows / (pull_rows + n) * (toward - X.mean(axis=0))
        np.testing.assert_allclose(sampler._directions[c], mean / np.linalg.norm(mean), atol=1e-6)
    assert sampler.settings["pull_rows"] == pull_rows


def test_a_large_class_has_its_own_concentration():
    d, kappa = 8, 25.0
    rng = np.random.default_rng(2)
    big = vonmises_fisher(np.eye(d)[0], kappa).rvs(6000, random_state=rng)
    bigger = vonmises_fisher(np.eye(d)[1], 5.0).rvs(20_000, random_state=rng)
    rows = ArrayRows(np.concatenate([bigger, big]), np.repeat([0, 1], [20_000, 6000]), normalize=True)
    sampler, _, _ = fitted(VmfSampler(), rows)
    X = sampler.sample(1, 0, 20_000, seed=0).X.astype(np.float64)
    assert np.linalg.norm(X.mean(axis=0)) == pytest.approx(resultant(d, kappa), abs=0.01)
    assert X.mean(axis=0)[0] == pytest.approx(resultant(d, kappa), abs=0.01)


def test_rows_of_other_lengths_keep_their_lengths_and_their_directions_law():
    unit = made_rows((60, 30, 1), normalize=True)
    X = unit.read(0, unit.n_samples)
    lengths = np.random.default_rng(0).uniform(1, 9, len(X)).astype(np.float32)
    rows = ArrayRows(X * lengths[:, None], unit.labels)
    sampler, _, _ = fitted(VmfSampler(), rows)
    reference, _, _ = fitted(VmfSampler(), unit)
    np.testing.assert_allclose(sampler._kappa[0], reference._kappa[0], rtol=1e-3)
    made = sampler.sample(1, 0, 300, seed=0)
    np.testing.assert_allclose(np.linalg.norm(made.X, axis=1), lengths[made.parent_ids[:, 0]], rtol=1e-5)
    assert (rows.labels[made.parent_ids[:, 0]] == 1).all()
    assert (reference.sample(1, 0, 5, seed=0).parent_ids == -1).all()


def test_one_feature_is_two_points():
    rows = ArrayRows([[1.0]] * 8 + [[-1.0]] * 2 + [[1.0]], [0] * 10 + [1], normalize=True)
    sampler, _, _ = fitted(VmfSampler(), rows)
    X = sampler.sample(0, 0, 4000, seed=0).X
    assert set(np.unique(X)) == {-1.0, 1.0}
    share = (X > 0).mean()
    assert share == pytest.approx(1 / (1 + np.exp(-2 * sampler._kappa[0])), abs=0.04)


def test_opposite_rows_are_drawn_all_over_the_sphere():
    rows = ArrayRows(np.array([[1, 0, 0], [-1, 0, 0]] * 20), [0] * 40, normalize=True)
    sampler, _, _ = fitted(VmfSampler(), rows)
    X = sampler.sample(0, 0, 4000, seed=0).X
    assert kstest(X[:, 2], "uniform", args=(-1, 2)).pvalue > 0.005  # Archimedes: uniform in each coordinate

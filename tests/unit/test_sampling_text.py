"""text: the mean leans on a shifted text vector, as far as text was right elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from ltstore.errors import ConfigError, DataError
from ltstore.rows import ArrayRows
from ltstore.sampling.text import TextSampler, TextSettings
from support.tail_rows import DRAWS, D, assert_law, borrowed, fitted, made_rows, of_class


@pytest.fixture
def vectors(tmp_path):
    path = tmp_path / "text.npy"
    np.save(path, np.random.default_rng(3).normal(size=(4, D)))
    return path


@pytest.mark.parametrize("c", range(4))
@pytest.mark.parametrize("anchor, scale", [(0.0, 1.0), (0.7, 1.0), (0.3, 0.4)])
def test_mean_and_covariance(vectors, c, anchor, scale):
    rows = made_rows()
    settings = TextSettings(
        vectors=str(vectors), scale=scale, anchor=anchor, nu=8.0, donor_share=0.6, pull=0.5, pull_rows=9.0
    )
    sampler, moments, donors = fitted(TextSampler(settings), rows)
    t = np.load(vectors)
    means = np.array([of_class(rows, i).mean(axis=0) for i in range(4)])
    head = donors.head
    assert head.tolist() == [True, True, False, False]
    anchors = means[head].mean(axis=0) + scale * (t - t[head].mean(axis=0))
    if scale == 1.0:  # the gap between image and text, added to each text vector
        np.testing.assert_allclose(anchors, t + (means[head] - t[head]).mean(axis=0), atol=1e-6)
    n = len(of_class(rows, c))
    mean = means[c] + 0.5 * 9 / (9 + n) * (anchors[c] - means[c])
    scatter = (n - 1) * np.cov(of_class(rows, c).T) if n > 1 else np.zeros((D, D))
    noise = 1 - anchor**2 * (n - 1) / n
    covariance = anchor**2 * scatter / n + noise * borrowed(rows, moments, donors, c, 8.0, 0.6)
    assert_law(sampler.sample(c, 0, DRAWS, seed=1).X, mean, covariance)


@pytest.mark.parametrize("true_rows", [2.0, 8.0])
def test_pull_rows_are_estimated_and_the_gap_is_taken_out(tmp_path, true_rows):
    """Text misses the class means by delta^2 = sigma^2 / kappa beside a gap for all: twice kappa is found."""
    rng = np.random.default_rng(8)
    n_classes, d = 80, 40
    counts = np.array([400] * 20 + [12] * 60)
    centres = 3 * rng.normal(size=(n_classes, d))
    labels = np.repeat(np.arange(n_classes), counts)
    rows = ArrayRows(centres[labels] + rng.normal(size=(len(labels), d)), labels)
    path = tmp_path / "t.npy"
    np.save(path, centres + 7 * rng.normal(size=d) + rng.normal(size=centres.shape) / np.sqrt(true_rows))
    sampler, _, _ = fitted(TextSampler(TextSettings(vectors=str(path))), rows)
    assert sampler.settings["pull_rows"] == pytest.approx(2 * true_rows, rel=0.15)
    assert sampler.settings["scale"] == pytest.approx(9 / (9 + 1 / true_rows), rel=0.03)
    # Vectors that say nothing of their classes: all are pulled a little toward one center.
    np.save(path, rng.permutation(centres))
    mute, moments, _ = fitted(TextSampler(TextSettings(vectors=str(path))), rows)
    assert mute.settings["scale"] < 0.1
    assert mute.settings["pull_rows"] < 0.3
    np.testing.assert_allclose(mute.means, moments.means, atol=0.5)


def test_the_scale_is_that_of_least_squares(tmp_path):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(20, D))
    labels = np.repeat(np.arange(20), 200)
    rows = ArrayRows(centres[labels] + 0.1 * rng.normal(size=(4000, D)), labels)
    for factor in (0.2, 1.0, 5.0):
        np.save(tmp_path / "t.npy", 3 + centres / factor)
        sampler, _, _ = fitted(TextSampler(TextSettings(vectors=str(tmp_path / "t.npy"))), rows)
        assert sampler.settings["scale"] == pytest.approx(factor, rel=0.01)
    np.save(tmp_path / "t.npy", np.ones((20, D)))
    assert fitted(TextSampler(TextSettings(vectors=str(tmp_path / "t.npy"))), rows)[0].settings["scale"] == 1
    np.save(tmp_path / "t.npy", -centres)
    assert fitted(TextSampler(TextSettings(vectors=str(tmp_path / "t.npy"))), rows)[0].settings["scale"] == 0


def test_text_is_scaled_where_rows_have_unit_norm(tmp_path, vectors):
    rows = made_rows(normalize=True)
    long = tmp_path / "long.npy"
    np.save(long, 50 * np.load(vectors))
    a, b = (fitted(TextSampler(TextSettings(vectors=str(p))), rows)[0] for p in (vectors, long))
    np.testing.assert_allclose(a.sample(3, 0, 20, seed=0).X, b.sample(3, 0, 20, seed=0).X, atol=1e-5)


def test_settings_name_the_vectors_by_digest(tmp_path, vectors):
    rows = made_rows()
    sampler, _, _ = fitted(TextSampler(TextSettings(vectors=str(vectors))), rows)
    digest = sampler.settings["vectors_digest"]
    assert digest.startswith("sha256:")
    copy, other = tmp_path / "copy.npz", tmp_path / "other.npy"
    np.savez(copy, vectors=np.load(vectors), class_names=np.array(list("abcd")))
    np.save(other, np.load(vectors) + 1)
    assert fitted(TextSampler(TextSettings(vectors=str(copy))), rows)[0].settings["vectors_digest"] == digest
    assert fitted(TextSampler(TextSettings(vectors=str(other))), rows)[0].settings["vectors_digest"] != digest
    assert TextSampler().settings["vectors_digest"] is None


def refused(rows, path, error, match):
    with pytest.raises(error, match=match):
        fitted(TextSampler(TextSettings(vectors=str(path))), rows)


def test_refusals(tmp_path, vectors):
    rows = made_rows()
    refused(rows, "", ConfigError, "text: no vectors: give vectors=FILE")
    refused(rows, tmp_path / "none.npy", ConfigError, "there is no file")
    bad = tmp_path / "bad.npy"
    np.save(bad, np.ones((3, D)))
    refused(rows, bad, DataError, r"\(4, 6\) floats; found \(3, 6\)")
    np.save(bad, np.array([["a"] * D] * 4))
    refused(rows, bad, DataError, "floats; found")
    values = np.load(vectors)
    values[2, 1] = np.nan
    np.save(bad, values)
    refused(rows, bad, DataError, "NaN or Inf in the vector of class 'c'")
    bad.write_bytes(b"not an array")
    refused(rows, bad, DataError, "is not a .npy or .npz")
    bad.write_bytes(b"PK\x03\x04 not a zip")
    refused(rows, bad, DataError, "is not a .npy or .npz")
    np.save(bad, np.array([{}], dtype=object), allow_pickle=True)
    refused(rows, bad, DataError, "is not a .npy or .npz")
    pair = tmp_path / "pair.npz"
    np.savez(pair, a=values, b=values)
    refused(rows, pair, DataError, "must have an array 'vectors', found a, b")
    np.savez(pair, vectors=np.load(vectors), class_names=np.array(list("abdc")))
    refused(rows, pair, DataError, "other class names, or in another order")
    with pytest.raises(ConfigError, match="vectors must be the path"):
        TextSettings(vectors=3)

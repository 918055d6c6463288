"""A softmax head trained on balanced Gaussian rows of one covariance is Gaussian discriminant analysis."""

from __future__ import annotations

import numpy as np

from ltstore.linear import TrainSettings, gda, train_linear
from ltstore.neighbors import class_donors
from ltstore.rows import ArrayRows
from ltstore.sampling import make_sampler, synthetic_blocks
from ltstore.stats import class_moments
from ltstore.stream import TrainingStream

COUNTS = (300, 120, 40, 12)
D = 5


def long_tail():
    rng = np.random.default_rng(4)
    labels = np.repeat(np.arange(4), COUNTS)
    mixing = rng.normal(size=(D, D))
    centres = rng.normal(size=(4, D)) @ mixing
    return ArrayRows(centres[labels] + 0.9 * rng.normal(size=(len(labels), D)) @ mixing, labels)


def logit_gaps(head, X):
    """Logits less their mean over classes: all that a softmax sees."""
    logits = X @ np.asarray(head.weight, np.float64).T + head.bias
    return logits - logits.mean(axis=1, keepdims=True)


def compared(n_drawn):
    """Return (root mean square of the difference of logits over that of GDA's, share of equal predictions)."""
    rows = long_tail()
    moments = class_moments(rows, rank=D)
    donors = class_donors(moments.means, moments.counts)
    sampler = make_sampler("neighbor-gauss", anchor=0.0, nu=1e9, donor_share=0.0, pull=0.0)
    sampler.fit(rows, moments, donors)
    blocks = list(synthetic_blocks(sampler, np.full(4, n_drawn), seed=0))
    drawn = ArrayRows(np.concatenate([b.X for b in blocks]), np.concatenate([b.labels for b in blocks]))
    model = train_linear(
        TrainingStream(drawn),
        TrainSettings(loss="ce", l2=1e-7, tolerance=1e-7),
        class_moments(drawn, rank=D),
    ).model
    X = rows.read(0, rows.n_samples).astype(np.float64)
    ours, theirs = (logit_gaps(head, X) for head in (model, gda(moments, shrinkage=0.0, mean_shrinkage=0.0)))
    apart = np.sqrt(np.square(ours - theirs).mean() / np.square(theirs).mean())
    return apart, (ours.argmax(axis=1) == theirs.argmax(axis=1)).mean()


def test_drawing_and_training_tends_to_the_closed_form():
    """Own means, the pooled covariance for all (nu far above every n), no anchors: what GDA assumes is then true.

    The logits differ by O(1 / sqrt M) for M drawn rows a class.
    """
    apart, agree = compared(20_000)
    assert apart < 0.03
    assert agree > 0.98

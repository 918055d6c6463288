"""Every backend of the softmax kernel against its definition in float64, and the laws it must obey.

Triton needs a GPU, or its interpreter: test_kernels_triton.py runs this file in it.
"""

from __future__ import annotations

import numpy as np
import pytest

from ltstore.errors import BackendUnavailableError, ConfigError, DataError, LabelError
from ltstore.kernels import BACKENDS, resolve_backend, softmax_gradient

SIZES = [1, 15, 16, 17, 63, 64, 65, 101]


@pytest.fixture(
    params=[
        "numba",
        "reference",
        pytest.param("triton", marks=pytest.mark.gpu),
        pytest.param("triton in narrow tiles", marks=pytest.mark.gpu),
    ]
)
def backend(request, monkeypatch):
    name, *tiles = request.param.split(" ", 1)
    assert name in BACKENDS
    try:
        resolve_backend(name)
    except BackendUnavailableError as err:
        pytest.skip(str(err))
    if tiles:
        monkeypatch.setattr("ltstore.kernels.triton_gpu._MOST_COLUMNS", 16)
    return name


def case(n, n_classes, seed=0, spread=3.0):
    rng = np.random.default_rng([seed, n, n_classes])
    logits = (spread * rng.normal(size=(n, n_classes))).astype(np.float32)
    labels = rng.integers(0, n_classes, n)
    offsets = rng.normal(size=n_classes).astype(np.float32)
    weights = rng.uniform(0, 2, n).astype(np.float32)
    return logits, labels, offsets, weights


def truth(logits, labels, offsets, weights=None, dtype=np.float64):
    """The naive definition, in any precision."""
    n = len(logits)
    w = np.ones(n, dtype) if weights is None else weights.astype(dtype)
    z = logits.astype(dtype) + offsets.astype(dtype)
    z = z - z.max(axis=1, keepdims=True)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    one_hot = np.eye(logits.shape[1], dtype=dtype)[labels]
    losses = np.log(np.exp(z).sum(axis=1)) - z[np.arange(n), labels]
    return float((w * losses).sum()), (p - one_hot) * w[:, None]


def extras(n_classes, share=0.3):
    """Margins and smoothing of a case; a single class cannot be smoothed."""
    rng = np.random.default_rng([9, n_classes])
    smoothing = rng.uniform(0, 1, n_classes)
    smoothing[0] = 0.0  # the class that offsets may take out
    smoothing *= share / max(smoothing.sum(), 1e-9)
    return rng.uniform(0, 2, n_classes).astype(np.float32), smoothing.astype(np.float32)


def full_truth(logits, labels, offsets, weights, margins, smoothing, dtype=np.float64):
    """The definition with every term, one row at a time."""
    loss, gradient = dtype(0), np.empty(logits.shape, dtype)
    for i, label in enumerate(labels):
        z = logits[i].astype(dtype) + offsets.astype(dtype)
        z[label] -= dtype(margins[label])
        target = smoothing.astype(dtype)
        target[label] += dtype(1) - smoothing.astype(dtype).sum()
        lse = np.log(np.exp(z - z.max()).sum()) + z.max()
        loss += dtype(weights[i]) * (lse - target @ z)
        gradient[i] = dtype(weights[i]) * (np.exp(z - lse) - target)
    return float(loss), gradient


@pytest.mark.parametrize("n", [1, 17, 64])
@pytest.mark.parametrize("n_classes", SIZES)
@pytest.mark.parametrize("terms", ["margins", "smoothing", "both"])
def test_margins_and_smoothing_equal_float64(backend, n, n_classes, terms):
    logits, labels, offsets, weights = case(n, n_classes)
    margins, smoothing = extras(n_classes)
    given = {"margins": margins, "smoothing": smoothing}
    if terms != "both":
        given = {terms: given[terms]}
    none = np.zeros(n_classes, np.float32)
    whole = (weights, given.get("margins", none), given.get("smoothing", none))
    loss, gradient = full_truth(logits, labels, offsets, *whole)
    naive_loss, naive_gradient = full_truth(logits, labels, offsets, *whole, dtype=np.float32)
    found = softmax_gradient(logits, labels, offsets, weights, **given, backend=backend)
    assert abs(found - loss) <= abs(naive_loss - loss) + 1e-6 * max(loss, 1)
    assert np.abs(logits - gradient).max() <= np.abs(naive_gradient - gradient).max() + 1e-6
    assert np.abs(logits.sum(axis=1, dtype=np.float64)).max() < 4e-6


def test_terms_of_zero_change_nothing(backend):
    logits, labels, offsets, weights = case(30, 17)
    none, other = np.zeros(17, np.float32), logits.copy()
    loss = softmax_gradient(logits, labels, offsets, weights, backend=backend)
    with_none = softmax_gradient(other, labels, offsets, weights, margins=none, smoothing=none, backend=backend)
    assert with_none == pytest.approx(loss, rel=1e-12)
    assert np.abs(logits - other).max() < 1e-7


def test_smoothing_leaves_out_a_class_taken_out_by_its_offset(backend):
    logits, _, offsets, _ = case(20, 7)
    offsets[0] = -1e9
    _, smoothing = extras(7)
    loss = softmax_gradient(logits, np.ones(20, np.int64), offsets, smoothing=smoothing, backend=backend)
    assert 0 < loss < 1e3
    assert np.abs(logits[:, 0]).max() < 1e-37


def test_smoothing_shifts_with_the_logits_and_permutes_with_the_classes(backend):
    logits, labels, offsets, weights = case(40, 33)
    margins, smoothing = extras(33)
    shifted, classes = logits + np.float32(4.0), np.random.default_rng(2).permutation(33)
    permuted = np.ascontiguousarray(logits[:, classes])
    loss = softmax_gradient(
        logits, labels, offsets, weights, margins=margins, smoothing=smoothing, backend=backend
    )
    again = softmax_gradient(
        shifted, labels, offsets, weights, margins=margins, smoothing=smoothing, backend=backend
    )
    other = softmax_gradient(
        permuted,
        np.argsort(classes)[labels],
        offsets[classes],
        weights,
        margins=margins[classes],
        smoothing=smoothing[classes],
        backend=backend,
    )
    assert again == pytest.approx(loss, rel=1e-5)
    assert other == pytest.approx(loss, rel=1e-5)
    assert np.abs(shifted - logits).max() < 3e-6
    assert np.abs(permuted - logits[:, classes]).max() < 3e-6


@pytest.mark.parametrize("first", [0, 5, 12])
def test_columns_of_other_heads_are_left_alone(backend, first):
    logits, labels, offsets, weights = case(23, 17)
    margins, smoothing = extras(17)
    wide = np.full((23, 29), 7.0, np.float32)
    wide[:, first : first + 17] = logits
    given = {"margins": margins, "smoothing": smoothing, "backend": backend}
    loss = softmax_gradient(logits, labels, offsets, weights, **given)
    assert softmax_gradient(wide, labels, offsets, weights, first=first, **given) == loss
    assert np.array_equal(wide[:, first : first + 17], logits)
    assert (np.delete(wide, np.s_[first : first + 17], axis=1) == 7.0).all()


@pytest.mark.parametrize("smoothing", [[0.5, 0.5, 0.0], [-0.1, 0.2, 0.0]])
def test_smoothing_that_is_no_share_is_refused(backend, smoothing):
    with pytest.raises(ConfigError, match="smoothing"):
        softmax_gradient(
            np.zeros((2, 3), np.float32),
            np.zeros(2, np.int64),
            np.zeros(3, np.float32),
            smoothing=np.array(smoothing, np.float32),
            backend=backend,
        )


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("n_classes", SIZES)
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_float64_within_the_error_of_naive_float32(backend, n, n_classes, weighted):
    logits, labels, offsets, weights = case(n, n_classes)
    weights = weights if weighted else None
    loss, gradient = truth(logits, labels, offsets, weights)
    naive_loss, naive_gradient = truth(logits, labels, offsets, weights, np.float32)
    found = softmax_gradient(logits, labels, offsets, weights, backend=backend)
    assert abs(found - loss) <= abs(naive_loss - loss) + 1e-6 * max(loss, 1)
    budget = np.abs(naive_gradient - gradient).max() + 1e-6
    assert np.abs(logits - gradient).max() <= budget


def test_no_rows_cost_nothing(backend):
    for n_classes in (0, 1, 64):
        empty = np.empty((0, n_classes), np.float32)
        none = np.empty(0, np.int64)
        assert softmax_gradient(empty, none, np.zeros(n_classes, np.float32), backend=backend) == 0.0


@pytest.mark.parametrize("n_classes", [2, 17, 64, 101])
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_extreme_logits_stay_exact(backend, n_classes, size):
    logits, labels, offsets, _ = case(33, n_classes)
    logits[::2] *= np.float32(size)
    logits[1::2] += np.float32(size)
    loss, gradient = truth(logits, labels, offsets)
    found = softmax_gradient(logits, labels, offsets, backend=backend)
    assert found == pytest.approx(loss, rel=1e-6)
    # 1e4 has a float32 spacing of 1e-3, which logits + offsets cannot avoid
    assert np.abs(logits - gradient).max() < 2e-3


@pytest.mark.parametrize("n_classes", [1, 15, 16, 17, 64, 65, 101])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_logit_is_never_hidden(backend, n_classes, bad):
    for column in {0, n_classes // 2, n_classes - 1}:
        logits, labels, offsets, _ = case(5, n_classes)
        logits[3, column] = bad
        assert not np.isfinite(softmax_gradient(logits, labels, offsets, backend=backend))


def test_all_logits_nan_or_lowest(backend):
    for value in (np.nan, -np.inf):
        logits = np.full((2, 9), value, np.float32)
        assert not np.isfinite(
            softmax_gradient(logits, np.zeros(2, np.int64), np.zeros(9, np.float32), backend=backend)
        )


def test_a_class_taken_out_by_its_offset_has_no_gradient(backend):
    logits, _, offsets, _ = case(20, 7)
    offsets[3] = -1e9
    loss = softmax_gradient(logits, np.zeros(20, np.int64), offsets, backend=backend)
    assert np.isfinite(loss)
    assert np.abs(logits[:, 3]).max() < 1e-37


def test_a_shift_of_logits_changes_nothing(backend):
    logits, labels, offsets, weights = case(40, 65)
    shifted = logits + np.float32(8.0)
    loss = softmax_gradient(logits, labels, offsets, weights, backend=backend)
    assert softmax_gradient(shifted, labels, offsets, weights, backend=backend) == pytest.approx(loss, rel=1e-5)
    assert np.abs(logits - shifted).max() < 3e-6


def test_rows_and_classes_may_be_permuted(backend):
    logits, labels, offsets, weights = case(40, 65)
    rng = np.random.default_rng(1)
    rows, classes = rng.permutation(40), rng.permutation(65)
    permuted = np.ascontiguousarray(logits[rows][:, classes])
    loss = softmax_gradient(logits, labels, offsets, weights, backend=backend)
    other = softmax_gradient(
        permuted, np.argsort(classes)[labels[rows]], offsets[classes], weights[rows], backend=backend
    )
    assert other == pytest.approx(loss, rel=1e-6)
    assert np.abs(permuted - logits[rows][:, classes]).max() < 2e-6


def test_halves_add_up(backend):
    logits, labels, offsets, weights = case(41, 33)
    first = softmax_gradient(logits[:20].copy(), labels[:20], offsets, weights[:20], backend=backend)
    second = softmax_gradient(logits[20:].copy(), labels[20:], offsets, weights[20:], backend=backend)
    assert softmax_gradient(logits, labels, offsets, weights, backend=backend) == pytest.approx(first + second)


def test_gradient_sums_to_zero_over_the_classes(backend):
    logits, labels, offsets, weights = case(50, 101)
    softmax_gradient(logits, labels, offsets, weights, backend=backend)
    assert np.abs(logits.sum(axis=1, dtype=np.float64)).max() < 2e-6


def test_a_doubled_row_is_weight_two(backend):
    logits, labels, offsets, _ = case(10, 17)
    doubled = np.concatenate([logits, logits[4:5]])
    two = np.ones(10, np.float32)
    two[4] = 2
    loss = softmax_gradient(doubled, np.append(labels, labels[4]), offsets, backend=backend)
    assert softmax_gradient(logits, labels, offsets, two, backend=backend) == pytest.approx(loss)
    assert np.abs(logits[4] - doubled[4] - doubled[10]).max() < 1e-6


def test_gradient_is_the_slope_of_the_loss(backend):
    logits, labels, offsets, weights = case(3, 5)
    step, gradient = np.float32(0.05), logits.copy()
    softmax_gradient(gradient, labels, offsets, weights, backend=backend)
    for i, c in [(0, 0), (1, 3), (2, int(labels[2]))]:
        up, down = logits.copy(), logits.copy()
        up[i, c] += step
        down[i, c] -= step
        rise = softmax_gradient(up, labels, offsets, weights, backend=backend)
        fall = softmax_gradient(down, labels, offsets, weights, backend=backend)
        assert (rise - fall) / (2 * step) == pytest.approx(gradient[i, c], abs=1e-3)


@pytest.mark.parametrize(
    "change",
    [
        {"logits": np.zeros((4, 3))},
        {"logits": np.zeros(4, np.float32)},
        {"logits": np.zeros((3, 4), np.float32).T},
        {"labels": np.zeros(3, np.int64)},
        {"labels": np.zeros(4, np.int32)},
        {"offsets": np.zeros(4, np.float32)},
        {"offsets": np.zeros((3, 1), np.float32)},
        {"first": 1},
        {"first": -1},
        {"margins": np.zeros(2, np.float32)},
        {"margins": np.zeros(3)},
        {"smoothing": np.zeros(4, np.float32)},
        {"weights": np.zeros(4)},
    ],
)
def test_wrong_arguments_are_refused(backend, change):
    given = {
        "logits": np.zeros((4, 3), np.float32),
        "labels": np.zeros(4, np.int64),
        "offsets": np.zeros(3, np.float32),
        "weights": None,
    } | change
    with pytest.raises(DataError, match="must be"):
        softmax_gradient(**given, backend=backend)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_outside_the_classes_is_refused(backend, label):
    labels = np.array([0, label, 2])
    with pytest.raises(LabelError, match=f"label {label} of row 1"):
        softmax_gradient(np.zeros((3, 3), np.float32), labels, np.zeros(3, np.float32), backend=backend)


def test_read_only_logits_are_refused(backend):
    logits = np.zeros((2, 2), np.float32)
    logits.flags.writeable = False
    with pytest.raises(DataError, match="writeable"):
        softmax_gradient(logits, np.zeros(2, np.int64), np.zeros(2, np.float32), backend=backend)

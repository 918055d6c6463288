"""A pass in torch equals the pass in NumPy, whatever the terms; and where a pass is made is said."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from ltstore.errors import BackendUnavailableError, ConfigError, DataError
from ltstore.kernels import resolve_backend
from ltstore.linear import TrainSettings, train_grid, train_linear
from ltstore.linear import device as device_module
from ltstore.linear.device import Placement, resolve_device, rounding_share
from ltstore.linear.objective import evaluate_together
from ltstore.linear.problem import Problem
from ltstore.neighbors import class_donors
from ltstore.rows import ArrayRows
from ltstore.sampling import balance_targets
from ltstore.stats import class_moments
from ltstore.stream import TrainingStream
from support.samplers import ready

COUNTS = (20, 12, 7, 4, 2, 1, 0)
C, D = len(COUNTS), 12

TERMS = {
    "plain": TrainSettings(),
    "cross entropy": TrainSettings(loss="ce", penalty="whitened"),
    "smoothing and margins": TrainSettings(smoothing=0.1, margin=0.3),
    "class weights": TrainSettings(class_weights="balanced"),
    "implicit": TrainSettings(implicit=0.5),
    "cosine": TrainSettings(head="cosine", margin=0.1),
    "all": TrainSettings(smoothing=0.1, margin=0.3, class_weights="effective-number", implicit=0.5),
}


def made_rows(unlabelled=9):
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.repeat(np.arange(C), COUNTS), np.full(unlabelled, -1)])
    order = rng.permutation(len(labels))
    X = rng.normal(size=(C + 1, D))[labels] + 0.7 * rng.normal(size=(len(labels), D)) + 0.5
    return ArrayRows(X[order], labels[order], class_names="abcdefg", normalize=True)


def made_stream(sampler=None, *, weighted=False, **options):
    """A stream and the moments of its rows."""
    rows = made_rows()
    moments = class_moments(rows, rank=3)
    if weighted:
        options["weights"] = np.random.default_rng(2).uniform(0, 2, rows.n_samples).astype(np.float32)
    if sampler is not None:
        donors = class_donors(moments.means, moments.counts)
        options["sampler"] = ready(sampler, rows).fit(rows, moments, donors)
        options["targets"] = np.where(moments.counts, balance_targets(moments.counts), 0)
    return TrainingStream(rows, seed=3, block_rows=16, **options), moments


KINDS = [
    "numba",
    "reference",
    pytest.param("triton", marks=pytest.mark.gpu),
]


@pytest.fixture(params=KINDS)
def evaluators(request):
    """Make evaluators of a kind of kernels, float32: on a GPU, or on the CPU."""
    from ltstore.linear.torch_pass import TorchEvaluator

    if request.param != "triton":
        return request.param, lambda **options: TorchEvaluator("cpu", **options)
    try:
        resolve_backend("triton")
    except BackendUnavailableError as err:
        pytest.skip(str(err))
    from ltstore.kernels.triton_gpu import interpreted

    device = "cpu" if interpreted() else "cuda:0"
    return "auto", lambda **options: TorchEvaluator(device, triton=True, **options)


def problems(stream, moments, settings, evaluator, backend="auto"):
    """The problem of torch and that of NumPy."""
    of_backend = replace(settings, backend=backend)
    placed = Problem(stream, of_backend, moments, placement=Placement("cpu", "float32", "", evaluator))
    return placed, Problem(stream, settings, moments, placement=Placement("cpu", "float32", ""))


def points(n, seed=1):
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(C, D)), rng.normal(size=C)) for _ in range(n)]


def assert_same(found, expected, tolerance=5e-6):
    assert found.value == pytest.approx(expected.value, rel=3e-6)
    assert found.loss == pytest.approx(expected.loss, rel=3e-6)
    scale = max(np.abs(expected.grad_weight).max(), 1)
    np.testing.assert_allclose(found.grad_weight, expected.grad_weight, atol=tolerance * scale)
    np.testing.assert_allclose(found.grad_bias, expected.grad_bias, atol=tolerance * scale)


@pytest.mark.parametrize("settings", TERMS.values(), ids=TERMS)
@pytest.mark.parametrize("limit_bytes", [None, 0], ids=["kept", "copied"])
@pytest.mark.parametrize("sampler", [None, "smote"])
def test_value_and_gradient_are_those_of_numpy(evaluators, settings, limit_bytes, sampler):
    backend, make = evaluators
    stream, moments = made_stream(sampler, weighted=True)
    assert (stream.combined(C) is None) == (sampler is None)
    ours, theirs = problems(stream, moments, settings, make(limit_bytes=limit_bytes), backend)
    for point in points(2):  # rows that were kept serve the second pass
        assert_same(ours.objective.evaluate(*point), theirs.objective.evaluate(*point))
    kept = "kept on the device" if limit_bytes is None else "copied to the device every pass"
    assert ours.resolved["device_rows"] == kept


@pytest.mark.parametrize("sampler", ["smote", "residual-transfer", "neighbor-gauss of residuals", "kde"])
@pytest.mark.parametrize("cache_bytes", [1 << 30, 0], ids=["in memory", "streamed"])
@pytest.mark.parametrize("weighted", [False, True])
def test_synthetic_rows_as_sums_or_made(evaluators, sampler, cache_bytes, weighted):
    _, make = evaluators
    stream, moments = made_stream(sampler, cache_bytes=cache_bytes, weighted=weighted)
    ours, theirs = problems(stream, moments, TrainSettings(), make())
    for point in points(2):
        assert_same(ours.objective.evaluate(*point), theirs.objective.evaluate(*point))


@pytest.mark.parametrize("sampler", [None, "smote"])
def test_blocks_in_parts_and_rows_in_parts(evaluators, monkeypatch, sampler):
    from ltstore.linear import torch_pass

    _, make = evaluators
    monkeypatch.setattr(torch_pass, "_MOST_ROWS", 17)
    monkeypatch.setattr(torch_pass, "_SYNTHETIC_ROWS", 50)
    stream, moments = made_stream(sampler, weighted=True)
    ours, theirs = problems(stream, moments, TERMS["all"], make())
    for point in points(1):
        assert_same(ours.objective.evaluate(*point), theirs.objective.evaluate(*point))


@pytest.mark.parametrize("sampler", [None, "residual-transfer"])
def test_several_heads_share_a_pass(evaluators, sampler):
    _, make = evaluators
    stream, moments = made_stream(sampler, weighted=True)
    evaluator = make()
    pairs = [problems(stream, moments, one, evaluator) for one in TERMS.values()]
    at = points(len(pairs))
    together = evaluate_together([ours.objective for ours, _ in pairs], at)
    for found, (_, theirs), point in zip(together, pairs, at, strict=True):
        assert_same(found, theirs.objective.evaluate(*point))


class SometimesCombined(TrainingStream):
    """Of several heads the tables would be too large."""

    def combined(self, n_columns):
        return super().combined(n_columns) if n_columns == C else None


def test_what_is_kept_follows_the_stream_and_the_heads(evaluators):
    """Rows are kept with or without the made ones, and terms of the stream that they are of."""
    _, make = evaluators
    whole, moments = made_stream("smote")
    other, _ = made_stream("residual-transfer")
    how = {"sampler": whole._sampler, "targets": whole.targets, "seed": 3, "block_rows": 16}
    changing = SometimesCombined(whole.rows, **how)
    weighted, _ = made_stream("smote", weighted=True)
    evaluator, (first, second) = make(), points(2)
    for stream, heads in ((changing, 2), (changing, 1), (other, 1), (whole, 1), (weighted, 1)):
        pairs = [problems(stream, moments, TrainSettings(), evaluator) for _ in range(heads)]
        found = evaluate_together([ours.objective for ours, _ in pairs], [first, second][:heads])
        assert_same(found[0], pairs[0][1].objective.evaluate(*first))


def test_a_pass_has_the_same_bits_every_time(evaluators):
    _, make = evaluators
    stream, moments = made_stream("neighbor-gauss of residuals", weighted=True)
    (point,) = points(1)
    one, other = (
        problems(stream, moments, TERMS["all"], make())[0].objective.evaluate(*point) for _ in range(2)
    )
    assert one.value == other.value
    assert np.array_equal(one.grad_weight, other.grad_weight)


def test_training_ends_at_the_same_head():
    from ltstore.linear.torch_pass import TorchEvaluator

    stream, moments = made_stream("smote")
    settings = TrainSettings(tolerance=1e-6, max_passes=25)
    rows = stream.rows

    def trained(evaluator, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(
                "ltstore.linear.together.resolve_device",
                lambda *_: Placement("cpu", "float32", "", evaluator),
            )
            model = train_linear(stream, settings, moments).model
        assert ("device_rows" in model.record["settings"]) == (evaluator is not None)
        return model

    with pytest.MonkeyPatch.context() as monkeypatch:
        a, b = trained(TorchEvaluator("cpu"), monkeypatch), trained(None, monkeypatch)
    X = rows.read(0, rows.n_samples)
    assert np.abs(a.predict_proba(X) - b.predict_proba(X)).max() < 0.01


def test_torch_is_left_as_it_was():
    import torch

    from ltstore.linear.torch_pass import TorchEvaluator

    stream, moments = made_stream()
    before = torch.get_float32_matmul_precision()
    seen = []

    class Watching(TorchEvaluator):
        def product(self, a, b):
            seen.append(torch.get_float32_matmul_precision())
            return super().product(a, b)

    for precision, inside in (("tf32", "high"), ("float32", "highest")):
        placed = problems(stream, moments, TrainSettings(), Watching("cpu", precision))[0]
        placed.objective.evaluate(*points(1)[0])
        assert set(seen) == {inside}
        seen.clear()
        assert torch.get_float32_matmul_precision() == before


class DamagedRows(ArrayRows):
    """Row 130 has a NaN when it is read."""

    def read(self, start, stop, out=None):
        X = super().read(start, stop, out=out).copy()
        if start <= 130 < stop:
            X[130 - start, 3] = np.nan
        return X


@pytest.mark.parametrize("limit_bytes", [None, 0], ids=["kept", "copied"])
def test_rows_that_are_not_finite_are_named_as_in_numpy(evaluators, limit_bytes):
    _, make = evaluators
    rng = np.random.default_rng(0)
    X, labels = rng.normal(size=(200, D)), rng.integers(0, C, 200)
    good = ArrayRows(X, labels, class_names="abcdefg")
    stream = TrainingStream(DamagedRows(X, labels, class_names="abcdefg"), block_rows=64)
    moments = class_moments(good)
    messages = []
    for one in problems(stream, moments, TrainSettings(), make(limit_bytes=limit_bytes)):
        with pytest.raises(DataError, match="1 of the 64 rows of a block, its row 2 first") as found:
            one.objective.evaluate(*points(1)[0])
        messages.append(str(found.value))
    assert messages[0] == messages[1]
    finite = TrainingStream(good, block_rows=64)
    ours = problems(finite, moments, TrainSettings(), make())[0]
    with pytest.raises(DataError, match="not finite though the rows are"), np.errstate(all="ignore"):
        ours.objective.evaluate(np.full((C, D), 1e38), np.zeros(C))


def test_bf16_on_the_cpu_is_near_and_recorded():
    from ltstore.linear.torch_pass import TorchEvaluator

    stream, moments = made_stream("smote")
    ours, theirs = problems(stream, moments, TrainSettings(), TorchEvaluator("cpu", "bf16"))
    (point,) = points(1)
    found, expected = ours.objective.evaluate(*point), theirs.objective.evaluate(*point)
    assert found.value == pytest.approx(expected.value, rel=5e-3)
    error = np.linalg.norm(found.grad_weight - expected.grad_weight) / np.linalg.norm(expected.grad_weight)
    assert 1e-4 < error < 2e-2
    settings = TrainSettings(precision="bf16", max_passes=20)
    record = train_linear(stream, settings, moments).model.record["settings"]
    assert record["device"] == "cpu"
    assert record["precision"] == "bf16"
    assert record["device_rows"] == "kept on the device"


def no_gpu(monkeypatch, n=0):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n)


def test_a_small_problem_stays_on_the_cpu_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it would fail
    stream, moments = made_stream()
    result = train_linear(stream, TrainSettings(max_passes=3), moments)
    record = result.model.record["settings"]
    assert record["device"] == "cpu"
    assert record["device_reason"] == "auto: a pass is 2e+04 flops, a GPU pays from 1e+11"
    assert "device_rows" not in record


def test_auto_takes_a_gpu_where_it_pays_and_says_why(monkeypatch):
    stream, _ = made_stream()
    monkeypatch.setattr(device_module, "LEAST_FLOPS", 1.5e4)

    def resolved(**settings):
        return device_module._resolve(TrainSettings(**settings), 4.0 * stream.n_samples * C * D)

    no_gpu(monkeypatch)
    device, reason = resolved()
    assert device == "cpu"
    assert "finds no CUDA GPU" in reason
    no_gpu(monkeypatch, n=2)
    assert resolved() == ("cuda:0", "auto: a pass is 2e+04 flops")
    assert resolved(device="cuda:1") == ("cuda:1", "asked for by name")
    assert resolved(device="cpu") == ("cpu", "asked for by name")
    assert resolved(solver="sgd") == ("cpu", "auto: sgd makes small steps")
    assert resolved(backend="numba") == ("cpu", "auto: backend numba is one of the CPU")
    with pytest.raises(BackendUnavailableError, match="finds 2 GPUs, numbered from 0"):
        resolved(device="cuda:2")
    monkeypatch.setattr(device_module, "LEAST_FLOPS", 1.6e4)
    assert resolved()[0] == "cpu"
    assert resolved(precision="tf32") == ("cuda:0", "auto: precision tf32 needs a GPU")
    monkeypatch.setattr(device_module, "find_spec", lambda _: None)
    with pytest.raises(BackendUnavailableError, match="package triton"):
        resolved(device="cuda")


@pytest.mark.parametrize(
    "settings", [{"device": "cuda"}, {"precision": "tf32"}, {"backend": "triton"}], ids=str
)
def test_what_was_asked_for_never_falls_back(monkeypatch, settings):
    no_gpu(monkeypatch)
    stream, moments = made_stream()
    (value,) = settings.values()
    with pytest.raises(
        BackendUnavailableError, match=rf"{value}' was asked for and torch [^:]+ finds no CUDA GPU"
    ):
        resolve_device(TrainSettings(**settings), stream, moments)


@pytest.mark.parametrize(
    "settings",
    [
        {"device": "gpu"},
        {"device": "cuda:x"},
        {"device": None},
        {"precision": "fp16"},
        {"device": "cpu", "precision": "tf32"},
        {"device": "cpu", "backend": "triton"},
        {"device": "cuda", "backend": "numba"},
        {"precision": "tf32", "backend": "reference"},
        {"solver": "sgd", "device": "cuda"},
        {"solver": "adam", "precision": "bf16"},
    ],
    ids=str,
)
def test_settings_that_contradict_each_other_are_refused(settings):
    with pytest.raises(ConfigError, match=r"device|precision"):
        TrainSettings(**settings)


def test_auto_precision_is_bf16_where_it_pays_and_does_no_harm(monkeypatch):
    no_gpu(monkeypatch)
    stream, moments = made_stream()

    def resolved(moments=moments, n_heads=100, **settings):
        placement = resolve_device(TrainSettings(**settings), stream, moments, n_heads)
        assert (placement.evaluator is None) == (placement.precision == "float32")
        return placement.precision, placement.precision_reason

    monkeypatch.setattr(device_module, "cpu_flags", lambda: frozenset({"avx512_bf16"}))
    assert resolved()[0] == "float32"  # a short pass
    monkeypatch.setattr(device_module, "LEAST_FLOPS", 1e3)
    precision, reason = resolved()
    assert precision == "bf16"
    assert "of the variance" in reason
    assert resolved(precision="float32") == ("float32", "asked for by name")
    assert resolved(n_heads=1)[0] == "float32"  # few logits a row
    assert resolved(tolerance=1e-4) == ("float32", "auto: lbfgs to tolerance 0.0001")
    assert resolved(solver="adam")[0] == "float32"
    far = class_moments(ArrayRows(np.float32(50) + stream.rows.read(0, 64), stream.rows.labels[:64]))
    assert "bf16 would add" in resolved(far)[1]
    monkeypatch.setattr(device_module, "cpu_flags", frozenset)
    assert resolved()[0] == "float32"


def test_the_share_of_rounding_is_what_rounding_adds():
    import torch

    rng = np.random.default_rng(0)
    X = (3 + rng.standard_normal((4000, 20))).astype(np.float32)
    moments = class_moments(ArrayRows(X, np.arange(4000) % 3))
    added = ((torch.from_numpy(X).bfloat16().float().numpy() - X) ** 2).sum(axis=1).mean()
    found = rounding_share(moments) * np.trace(moments.pooled)
    assert 0.25 < added / found < 1  # numbers are off by the most at the lower end of a binade
    flat = class_moments(ArrayRows(np.ones((6, 20), np.float32), np.arange(6) % 3))
    assert rounding_share(flat) == np.inf


def test_heads_of_a_grid_count_together_and_have_one_device(monkeypatch):
    stream, moments = made_stream()
    grid = [TrainSettings(l2=l2, max_passes=3) for l2 in (0.01, 0.1)]
    reasons = {result.model.record["settings"]["device_reason"] for result in train_grid(stream, grid, moments)}
    assert reasons == {"auto: a pass is 3e+04 flops, a GPU pays from 1e+11"}
    with pytest.raises(ConfigError, match="one precision"):
        train_grid(stream, [TrainSettings(), TrainSettings(precision="bf16")], moments)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
@pytest.mark.parametrize("limit_bytes", [None, 0])
def test_on_a_gpu(precision, limit_bytes):
    """Large enough for the tensor cores and for copies that overlap with computing."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} finds no CUDA GPU")
    from ltstore.linear.torch_pass import TorchEvaluator

    rng = np.random.default_rng(0)
    rows = ArrayRows(rng.normal(size=(30_000, 64)), rng.integers(0, 40, 30_000))
    moments = class_moments(rows)
    stream = TrainingStream(rows, block_rows=4096)
    ours, theirs = problems(
        stream, moments, TrainSettings(), TorchEvaluator("cuda:0", precision, limit_bytes=limit_bytes)
    )
    at = 0.1 * rng.normal(size=(40, 64)), rng.normal(size=40)
    for _ in range(2):
        found, expected = ours.objective.evaluate(*at), theirs.objective.evaluate(*at)
        most = {"float32": 1e-5, "tf32": 2e-3, "bf16": 1e-2}[precision]
        assert found.value == pytest.approx(expected.value, rel=most)
        error = np.linalg.norm(found.grad_weight - expected.grad_weight) / np.linalg.norm(expected.grad_weight)
        assert error < most


def test_the_finest_tolerance_of_a_grid_decides_its_precision(monkeypatch):
    no_gpu(monkeypatch)
    monkeypatch.setattr(device_module, "cpu_flags", lambda: frozenset({"avx512_bf16"}))
    monkeypatch.setattr(device_module, "LEAST_FLOPS", 1.0)
    monkeypatch.setattr(device_module, "LEAST_COLUMNS", 1)
    stream, moments = made_stream()

    def precisions(*tolerances):
        grid = [TrainSettings(tolerance=each, max_passes=2) for each in tolerances]
        return {each.model.record["settings"]["precision"] for each in train_grid(stream, grid, moments)}

    assert precisions(1e-2, 1e-3) == {"bf16"}
    assert precisions(1e-3, 1e-6) == {"float32"}

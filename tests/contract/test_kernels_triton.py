"""Triton's kernels on tensors; and, where there is no GPU, the contract in Triton's interpreter.

The interpreter has to be chosen before Triton is imported, so it gets a process of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ltstore.errors import BackendUnavailableError
from ltstore.kernels import reference, resolve_backend
from ltstore.kernels.contract import SoftmaxTerms
from support.sums import sums_case

HERE = Path(__file__).parent
INTERPRETER = "TRITON_INTERPRET"


@pytest.fixture
def gpu():
    """The module of the kernels, and the device that they run on here."""
    pytest.importorskip("triton", reason="triton is not installed")
    try:
        resolve_backend("triton")
    except BackendUnavailableError as err:
        pytest.skip(str(err))
    from ltstore.kernels import triton_gpu

    return triton_gpu, "cpu" if triton_gpu.interpreted() else "cuda"


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETER in os.environ, reason="runs in the interpreter already")
@pytest.mark.parametrize(
    "file",
    ["contract/test_kernels_softmax.py", "contract/test_kernels_triton.py", "unit/test_linear_device.py"],
)
def test_in_the_interpreter(file):
    pytest.importorskip("triton", reason="triton is not installed: it comes with torch for CUDA")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "gpu"]
    command += ["-W", "ignore::RuntimeWarning"]  # the interpreter divides 0 by 0 in rows that are masked
    found = subprocess.run(
        [*command, str(HERE.parent / file)],
        env={**os.environ, INTERPRETER: "1", "CUDA_VISIBLE_DEVICES": ""},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-3000:]
    passed = re.search(r"(\d+) passed", found.stdout)
    assert passed, found.stdout[-3000:]
    assert int(passed[1]) >= 4


@pytest.mark.skipif(INTERPRETER in os.environ, reason="the interpreter does not compile")
@pytest.mark.parametrize("capability", [80, 90])
def test_the_compiler_takes_the_kernels_without_a_gpu(capability, monkeypatch, tmp_path):
    triton = pytest.importorskip("triton", reason="triton is not installed: it comes with torch for CUDA")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ltstore.kernels import triton_gpu

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))  # nothing compiled before serves
    types = {"labels": "*i64", "starts": "*i64", "sources": "*i64", "targets": "*i64"}
    types |= dict.fromkeys(("n_rows", "n_classes", "stride", "n_columns", "rows_stride", "out_stride"), "i32")
    flags = {"HAS_MARGINS": True, "HAS_SMOOTHING": True, "HAS_WEIGHTS": True}
    bare = dict.fromkeys(flags, False)
    for kernel, constants, logits in (
        (triton_gpu._softmax_rows, {**flags, "ROWS": 2, "COLUMNS": 1024}, "*fp32"),
        (triton_gpu._softmax_rows, {**flags, "ROWS": 32, "COLUMNS": 16}, "*bf16"),
        (triton_gpu._softmax_rows, {**bare, "ROWS": 16, "COLUMNS": 128}, "*fp32"),
        (triton_gpu._sum_rows, {"ADD": True, "COLUMNS": 128}, ""),
        (triton_gpu._sum_rows, {"ADD": False, "COLUMNS": 1024}, ""),
    ):
        given = {"logits": logits, **types, **dict.fromkeys(constants, "constexpr")}
        signature = {name: given.get(name, "*fp32") for name in kernel.arg_names}
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        assert triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"]


def case(n, n_classes, seed=0):
    rng = np.random.default_rng([seed, n, n_classes])
    logits = (3 * rng.normal(size=(n, n_classes))).astype(np.float32)
    smoothing = rng.uniform(0, 1, n_classes)
    terms = SoftmaxTerms(
        rng.normal(size=n_classes).astype(np.float32),
        rng.uniform(0, 2, n_classes).astype(np.float32),
        (0.3 * smoothing / smoothing.sum()).astype(np.float32),
    )
    return logits, rng.integers(0, n_classes, n), terms, rng.uniform(0, 2, n).astype(np.float32)


def on_device(gpu, logits, labels, terms, weights, *, first=0, dtype="float32"):
    """Return loss and gradient of the kernel."""
    import torch

    module, device = gpu
    own = torch.tensor(logits, device=device).to(getattr(torch, dtype))
    losses = module.softmax_losses(
        own,
        torch.tensor(labels, device=device),
        module.terms_on(device, terms),
        None if weights is None else torch.tensor(weights, device=device),
        first,
    )
    return losses.double().cpu().numpy(), own.float().cpu().numpy()


@pytest.mark.gpu
@pytest.mark.parametrize("n_classes", [1023, 1024, 1025, 2500])
def test_many_classes_take_several_tiles(gpu, n_classes):
    logits, labels, terms, weights = case(3, n_classes)
    labels[:2] = 0, n_classes - 1
    losses, gradient = on_device(gpu, logits, labels, terms, weights)
    expected = logits.copy()
    loss = reference.softmax_gradient(expected, labels, terms, weights)
    assert losses.sum() == pytest.approx(loss, rel=1e-6)
    assert np.abs(gradient - expected).max() < 2e-6


@pytest.mark.gpu
def test_the_losses_are_those_of_each_row(gpu):
    logits, labels, terms, weights = case(45, 7)
    losses, _ = on_device(gpu, logits, labels, terms, weights)
    for i in range(45):
        row = slice(i, i + 1)
        alone = reference.softmax_gradient(logits[row].copy(), labels[row], terms, weights[row])
        assert losses[i] == pytest.approx(alone, rel=1e-5, abs=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("n_classes", [3, 100, 1030])
def test_bfloat16_logits_are_computed_in_float32(gpu, n_classes):
    """All that is lost is the rounding of what is read and what is written, which the interpreter cuts off."""
    import torch

    logits, labels, terms, weights = case(9, n_classes)
    rounded = torch.tensor(logits).bfloat16().float().numpy()
    losses, gradient = on_device(gpu, logits, labels, terms, weights, dtype="bfloat16")
    expected = rounded.copy()
    loss = reference.softmax_gradient(expected, labels, terms, weights)
    assert losses.sum() == pytest.approx(loss, rel=1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=2**-7, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("n_classes", [40, 1100])
def test_a_class_at_minus_infinity_takes_no_part(gpu, monkeypatch, n_classes):
    """Even where a whole tile is: -inf less -inf would be NaN."""
    module, _ = gpu
    monkeypatch.setattr(module, "_MOST_COLUMNS", 16)
    logits, labels, terms, weights = case(5, n_classes)
    labels[:] = n_classes - 1
    logits[:, :17] = -np.inf
    bare = SoftmaxTerms(terms.offsets)
    losses, gradient = on_device(gpu, logits, labels, bare, weights)
    assert (gradient[:, :17] == 0).all()
    kept = logits[:, 17:].copy()
    loss = reference.softmax_gradient(kept, labels - 17, SoftmaxTerms(terms.offsets[17:]), weights)
    assert losses.sum() == pytest.approx(loss, rel=1e-6)
    assert np.abs(gradient[:, 17:] - kept).max() < 2e-6


@pytest.mark.gpu
@pytest.mark.parametrize("first", [0, 5])
def test_another_heads_columns_are_left_alone(gpu, first):
    logits, labels, terms, weights = case(23, 17)
    wide = np.full((23, 29), 7.0, np.float32)
    wide[:, first : first + 17] = logits
    losses, gradient = on_device(gpu, logits, labels, terms, weights)
    of_wide, beside = on_device(gpu, wide, labels, terms, weights, first=first)
    assert np.array_equal(losses, of_wide)
    assert np.array_equal(beside[:, first : first + 17], gradient)
    assert (np.delete(beside, np.s_[first : first + 17], axis=1) == 7.0).all()


@pytest.mark.gpu
@pytest.mark.parametrize("n", [0, 1, 33])
@pytest.mark.parametrize("n_terms", [0, 1, 9])
@pytest.mark.parametrize("n_columns", [1, 17, 1030])
def test_sums_and_the_way_back_are_the_products_of_the_sparse_matrix(gpu, n, n_terms, n_columns):
    import torch

    module, device = gpu
    indices, factors, atoms, dense = sums_case(n, n_terms, 7, n_columns)
    sums = module.RowSums(indices, factors, 7, device)
    out = torch.full((n, n_columns + 3), float("nan"), device=device)[:, :n_columns]
    sums.combine(torch.tensor(atoms, device=device), out)
    np.testing.assert_allclose(out.cpu().numpy(), dense @ atoms, atol=2e-6 * max(n_terms, 1))
    rows = np.random.default_rng(1).standard_normal((n, n_columns)).astype(np.float32)
    grown = [torch.tensor(atoms, device=device) for _ in range(2)]
    for one in grown:
        sums.scatter(torch.tensor(rows, device=device), one)
    np.testing.assert_allclose(grown[0].cpu().numpy(), atoms + dense.T @ rows, atol=1e-5 * max(n, 1))
    assert torch.equal(*grown)


@pytest.mark.gpu
def test_a_term_of_factor_zero_is_none(gpu):
    import torch

    module, device = gpu
    sums = module.RowSums(np.array([[0, 1]]), np.array([[0, 3]], np.float32), 2, device)
    atoms, out = torch.tensor([[np.nan], [2.0]], device=device), torch.zeros((1, 1), device=device)
    sums.combine(atoms, out)
    assert out.item() == 6
    sums.scatter(torch.ones((1, 1), device=device), atoms)
    assert torch.isnan(atoms[0, 0])
    assert atoms[1, 0] == 5

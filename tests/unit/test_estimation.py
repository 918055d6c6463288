"""What an estimate says: formulas scale as they must, inputs are refused by name, and a store tells its own size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.accuracy.command import RESULTS
from bench.data import made_rows, write_rows
from ltstore.errors import ConfigError
from ltstore.stream.loader import CACHE_BYTES
from ltstore.workflow import estimate
from ltstore.workflow.estimation.costs import LEAST, MOST, PASSES
from ltstore.workflow.estimation.rates import Rates, measure_rates

RATES = Rates(
    product_flops=1e11,
    gram_flops=1e11,
    copied_bytes=2e10,
    converted_bytes=5e9,
    sorted_logits=2e7,
    calls=4e5,
)
STEPS = ["ingest", "moments", "donors", "index", "train", "evaluate"]


def told(*shape, **how):
    return estimate(*shape, **{"rates": RATES, "device": "cpu", "memory_bytes": 64 << 30, **how})


def seconds(found, name):
    span = found.step(name).seconds
    assert span is not None
    assert 0 < span.low <= span.high
    return span


def test_a_hundred_million_rows_are_answered_without_computing():
    found = told(1e8, 1536, 8142, imbalance=100, synthetic="fill")
    assert [step.name for step in found.steps] == [*STEPS[:4], "sample", *STEPS[4:]]
    assert found.size.n_rows == 10**8
    assert found.size.n_synthetic > 10**8
    train = seconds(found, "train")
    flops = found.size.pass_flops
    assert flops == 4.0 * (10**8 + found.size.n_synthetic) * 1536 * 8142
    assert train.low >= LEAST * PASSES[0] * flops / 1e11
    assert train.high >= MOST * PASSES[1] * flops / 1e11
    assert any("GB/s" in text for text in found.advice)
    assert any("drawn again in every pass" in text for text in found.advice)


def test_long_passes_grow_with_rows_classes_features_and_heads():
    base = seconds(told(2e6, 512, 500), "train").high
    assert seconds(told(4e6, 512, 500), "train").high == pytest.approx(2 * base, rel=0.05)
    assert seconds(told(2e6, 512, 1000), "train").high == pytest.approx(2 * base, rel=0.05)
    assert seconds(told(2e6, 1024, 500), "train").high == pytest.approx(2 * base, rel=0.05)
    assert seconds(told(2e6, 512, 500, n_heads=2), "train").high == pytest.approx(2 * base, rel=0.05)
    assert seconds(told(2e6, 512, 500, rates=replace(RATES, product_flops=2e11)), "train").high < 0.6 * base


def test_the_first_pass_is_free_unless_there_are_synthetic_rows():
    one = told(1e6, 512, 500, passes=1)
    assert seconds(one, "train").high < MOST * one.size.pass_flops / 1e11
    drawn = told(1e6, 512, 500, passes=1, synthetic=1)
    assert seconds(drawn, "train").low > LEAST * drawn.size.pass_flops / 1e11


def test_rows_are_kept_up_to_the_cache_of_the_stream():
    n = CACHE_BYTES // (4 * 256)
    assert told(n, 256, 10).size.rows_kept
    assert not told(n + 1, 256, 10).size.rows_kept
    kept, read = (told(rows, 256, 10).step("train").memory_bytes for rows in (n, n + 1))
    assert kept - read == pytest.approx(CACHE_BYTES, rel=0.01)


def test_a_grid_too_large_for_the_machine_is_said_with_what_to_do():
    found = told(1e5, 1536, 8142, n_heads=8, memory_bytes=16 << 30)
    assert found.step("train").memory_bytes > found.memory_bytes
    assert any("8 heads" in text and "grid" in text for text in found.advice)
    assert not any(text.startswith("train needs") for text in told(1e5, 1536, 8142).advice)


def test_no_index_fits_is_said():
    found = told(1e9, 1536, 100, memory_bytes=8 << 30)
    assert found.step("index").memory_bytes is None
    assert any("no kind of index" in text for text in found.advice)


def test_seconds_of_an_ingest_are_not_invented():
    assert told(1e6, 512, 10).step("ingest").seconds is None
    assert seconds(told(1e6, 512, 10, images_per_second=1000), "ingest").low == pytest.approx(LEAST * 1000)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_store_tells_its_size_and_is_no_larger_than_said(tmp_path: Path, dtype):
    rows = made_rows(5000, 64, 7)
    write_rows(tmp_path / "s.zarr", rows, dtype)
    on_disk = sum(file.stat().st_size for file in (tmp_path / "s.zarr").rglob("*") if file.is_file())
    found = told(store=tmp_path / "s.zarr")
    assert (found.size.n_rows, found.size.n_features, found.size.n_classes) == (rows.n_samples, 64, 7)
    assert found.size.row_bytes == 64 * np.dtype(dtype).itemsize
    assert found.size.n_donors < 7
    assert 0.9 * on_disk < found.step("ingest").disk_bytes <= on_disk
    said = told(rows.n_samples, 64, 7, dtype=dtype).step("ingest").disk_bytes
    assert on_disk <= said < 1.6 * on_disk
    filled = told(store=tmp_path / "s.zarr", synthetic="fill").size
    assert filled.n_synthetic == 7 * np.bincount(rows.labels).max() - rows.n_samples
    assert told(1e6, store=tmp_path / "s.zarr").size.n_donors == 7  # class sizes of other rows say nothing


@pytest.mark.parametrize(
    ("shape", "how", "message"),
    [
        ((1e6, 512), {}, "how many classes"),
        ((1.5, 512, 10), {}, "rows must be a whole number"),
        ((float("nan"), 512, 10), {}, "rows must be a whole number"),
        ((float("inf"), 512, 10), {}, "rows must be a whole number"),
        ((10, 512, 10), {"synthetic": "fill"}, "sizes must be known"),
        ((10, 512, 10), {"synthetic": "some"}, "synthetic must be a number"),
        ((10, 512, 10), {"imbalance": 0.5}, "at least 1; found 0.5"),
        ((10, 512, 10), {"precision": "int8"}, "precision must be one of"),
        ((10, 512, 10), {"dtype": "int8"}, "dtype must be float16 or float32"),
        ((10, 512, 10), {"device": "gpu"}, "device must be"),
        ((10, 512, 10), {"gflops": 0}, "gflops must be above 0"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(shape, how, message):
    with pytest.raises(ConfigError, match=message):
        told(*shape, **how)


def test_the_passes_are_those_of_the_accuracy_results():
    """Eight in ten of the trained linear heads."""
    records = [
        json.loads(line)["settings"]
        for file in sorted(RESULTS.glob("accuracy/*.jsonl"))
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    passes = [one["n_passes"] for one in records if one.get("head") == "linear" and one.get("n_passes")]
    low, high = np.percentile(passes, (10, 90))
    assert pytest.approx((low, high), rel=0.2) == PASSES


def test_given_gflops_stand_for_all_products():
    rates = measure_rates(32, 8, gflops=1000)
    assert rates.product_flops == rates.gram_flops == 1e12
    assert all(value > 0 for value in measure_rates(32, 8).to_json().values())

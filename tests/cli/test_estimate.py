"""`ltstore estimate` answers in a table that fits a terminal, or in JSON."""

from __future__ import annotations

import re
from pathlib import Path

from bench.data import made_rows, write_rows
from support.shell import Shell

SIZE = ("--rows", "1e8", "--features", "1536", "--classes", "8142", "--device", "cpu")


def test_the_table_fits_eighty_columns(shell: Shell) -> None:
    done = shell.ok(
        "estimate",
        *SIZE,
        "--imbalance",
        "500",
        "--synthetic",
        "fill",
        "--grid",
        "8",
        "--images-per-second",
        "900",
    )
    assert max(map(len, map(str.rstrip, done.out.splitlines()))) <= 80
    for word in ("100,000,000 rows", "ingest", "moments", "index", "sample", "train", "8 heads"):
        assert word in done.out
    assert re.search(r"GFLOP/s on cpu \((float32|bf16)\)", done.err)


def test_json_has_every_step_and_what_was_given(shell: Shell) -> None:
    words = ("--gflops", "2000", "--memory", "256GB", "--passes", "30", "--test-rows", "1e5", "--json")
    found = shell.ok("estimate", *SIZE, *words).json
    assert found["rates"]["product_flops"] == 2e12
    assert found["memory_bytes"] == 256_000_000_000
    assert found["size"]["passes"] == [30, 30]
    steps = {step["name"]: step for step in found["steps"]}
    assert list(steps) == ["ingest", "moments", "donors", "index", "train", "evaluate"]
    assert steps["train"]["seconds"]["low"] > 0.8 * 29 * 4 * 1e8 * 1536 * 8142 / 2e12


def test_a_store_tells_what_is_left_out(shell: Shell, tmp_path: Path) -> None:
    write_rows(tmp_path / "s.zarr", made_rows(2000, 16, 5))
    found = shell.ok("estimate", "--store", str(tmp_path / "s.zarr"), "--synthetic", "0.5", "--json").json
    size = found["size"]
    assert (size["n_features"], size["n_classes"], size["n_synthetic"]) == (16, 5, size["n_rows"] // 2)


def test_what_is_missing_is_one_line(shell: Shell) -> None:
    result = shell("estimate", "--rows", "1e6", "--features", "768")
    assert result.code == 1
    assert result.err == "error: how many classes? give them, or a store that has them\n"

"""`ltstore import` and `ltstore export` as a user meets them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from support.foreign import matrix, same_bits, stored
from support.shell import Shell


def test_in_out_and_in_again(shell: Shell, tmp_path: Path) -> None:
    X, y = matrix(40, dtype="float16"), np.arange(40) % 4
    np.savez(tmp_path / "x.npz", X=X, y=y)
    (tmp_path / "classes.txt").write_text("newt\nété\ncrane\nowl\n", encoding="utf-8")
    store = tmp_path / "a.zarr"
    words = (
        "import",
        tmp_path / "x.npz",
        store,
        "--classes",
        tmp_path / "classes.txt",
        "--model",
        "M",
        "--json",
    )
    report = shell.ok(*words).json
    assert (report["n_rows"], report["dtype"], report["n_classes"], report["n_written"]) == (
        40,
        "float16",
        4,
        40,
    )
    assert shell.ok(*words).json["n_written"] == 0  # all of it was there
    facts = shell.ok("info", store, "--json").json
    assert facts["encoder"]["encoder"] == "import"
    assert shell.ok("verify", store).code == 0
    for layout, name in (("parquet", "o.parquet"), ("clip-retrieval", "clip")):
        out = shell.ok("export", store, tmp_path / name, "--format", layout, "--json").json
        assert out["n_rows"] == 40
        assert shell.ok("import", tmp_path / name, tmp_path / f"{layout}.zarr").out.startswith("store")
        split, found = stored(tmp_path / f"{layout}.zarr")
        assert same_bits(found, X)
        assert split.class_names == ("newt", "été", "crane", "owl")
        assert split.encoder.model == "M"
    assert shell("export", store, tmp_path / "o.parquet", "--format", "parquet").code == 1
    assert shell("export", store, tmp_path / "p.parquet").code == 2  # --format says what OUT is


def test_imported_rows_train(shell: Shell, tmp_path: Path) -> None:
    y = np.repeat([0, 1, 2], [60, 20, 5])
    X = matrix(len(y)) + 4 * np.eye(5, dtype=np.float32)[y]
    for name in ("train", "test"):
        np.savez(tmp_path / f"{name}.npz", X=X, y=y)
        shell.ok("import", tmp_path / f"{name}.npz", tmp_path / "a.zarr", "--split", name)
    shell.ok("train", tmp_path / "a.zarr", "--out", tmp_path / "model")
    result = shell.ok("evaluate", tmp_path / "model", "--store", tmp_path / "a.zarr", "--split", "test")
    assert "model" in result.out


def test_failed_rows_are_said(shell: Shell, tmp_path: Path) -> None:
    X = matrix(20)
    X[3, 1] = np.nan
    np.save(tmp_path / "x.npy", X)
    result = shell.ok("import", tmp_path / "x.npy", tmp_path / "a.zarr")
    assert "1 non_finite" in result.out
    assert "warning: 1 rows have no embedding" in result.err
    refused = shell("export", tmp_path / "a.zarr", tmp_path / "o.npy", "--format", "npy")
    assert refused.code == 1
    assert refused.err == (
        f"error: 1 of 20 rows of {tmp_path / 'a.zarr' / 'train'} have no embedding: "
        "leave them out with --skip-failed\n"
    )
    out = shell.ok("export", tmp_path / "a.zarr", tmp_path / "o.npy", "--format", "npy", "--skip-failed")
    assert "19 (1 failed rows left out)" in out.out
    np.save(tmp_path / "nan.npy", np.full((4, 3), np.nan))
    assert shell("import", tmp_path / "nan.npy", tmp_path / "b.zarr").code == 1


def test_errors_are_one_line(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(b"no array")
    for words in (("import", tmp_path / "x.npy"), ("import", tmp_path / "none.npy")):
        result = shell(*words, tmp_path / "a.zarr")
        assert (result.code, result.err.count("\n")) == (1, 1)
        assert result.err.startswith("error: ")
        assert not (tmp_path / "a.zarr").exists()

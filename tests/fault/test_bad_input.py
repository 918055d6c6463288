"""Bad input ends in one clear line, or in a counted row: never in a traceback, never in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ltstore.encode import ingest, open_encoder
from ltstore.sources import open_source
from ltstore.store import open_store
from ltstore.types import Encoder, FloatArray, RowStatus
from support.shell import Shell


def _picture(path: Path, seed: int, size: int = 24) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes, five images each."""
    for i in range(10):
        _picture(tmp_path / "photos" / ("cat" if i < 5 else "dog") / f"{i}.jpg", i)
    return tmp_path / "photos"


def _refused(shell: Shell, *words: Any, code: int = 1) -> str:
    result = shell(*words)
    assert result.code == code, result.err
    assert result.err.startswith("error: ")
    assert result.err.strip().count("\n") == 0
    assert "Traceback" not in result.err
    assert "internal error" not in result.err
    return result.err


PIXELS = ("--encoder", "pixels:8")


def test_missing_path(shell: Shell, tmp_path: Path) -> None:
    assert "nowhere" in _refused(shell, "ingest", tmp_path / "nowhere", tmp_path / "s.zarr", *PIXELS)
    assert not (tmp_path / "s.zarr").exists()


def test_empty_folder_and_no_classes(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "directory per class" in _refused(shell, "ingest", tmp_path / "empty", tmp_path / "s.zarr", *PIXELS)
    _picture(tmp_path / "flat" / "a.png", 0)
    assert "directory per class" in _refused(shell, "ingest", tmp_path / "flat", tmp_path / "s.zarr", *PIXELS)
    (tmp_path / "hollow" / "cat").mkdir(parents=True)
    assert "no images" in _refused(shell, "ingest", tmp_path / "hollow", tmp_path / "s.zarr", *PIXELS)


def test_corrupt_and_truncated_images_keep_their_rows(shell: Shell, photos: Path, tmp_path: Path) -> None:
    whole = _picture(tmp_path / "big.jpg", 3, 300).read_bytes()
    (photos / "cat" / "2.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "dog" / "7.jpg").write_bytes(b"\xff\xd8 no jpeg")
    (photos / "dog" / "8.jpg").write_bytes(b"")
    store = tmp_path / "s.zarr"
    result = shell.ok("ingest", photos, store, *PIXELS)
    assert "3 corrupt" in result.out
    assert "3 images have no embedding" in result.err
    split = open_store(store).split("train")
    np.testing.assert_array_equal(np.flatnonzero(split.status != RowStatus.OK), [2, 7, 8])
    assert split.keys([7]) == ["dog/7.jpg"]
    assert split.errors([8])[0]
    assert split.rows().n_samples == 7
    info = shell.ok("info", store)
    assert "3 corrupt" in info.out
    assert "row 7 failed: dog/7.jpg" in info.err


def test_all_images_bad_is_an_error(shell: Shell, photos: Path, tmp_path: Path) -> None:
    for image in photos.rglob("*.jpg"):
        image.write_bytes(b"x")
    result = shell("ingest", photos, tmp_path / "s.zarr", *PIXELS)
    assert result.code == 1
    assert "none of the 10 images" in result.err


def test_a_list_under_a_wrong_root_makes_no_store(shell: Shell, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("cat/0.jpg 0\ndog/5.jpg 1\n")
    words = ("ingest", tmp_path / "list.txt", tmp_path / "s.zarr", *PIXELS, "--root")
    message = _refused(shell, *words, tmp_path / "nowhere")
    assert "none of the 2 images is there" in message
    assert str(tmp_path / "nowhere" / "cat" / "0.jpg") in message
    assert not (tmp_path / "s.zarr").exists()
    shell.ok(*words, photos)


def test_a_changed_image_is_another_source(shell: Shell, photos: Path, tmp_path: Path) -> None:
    shell.ok("ingest", photos, tmp_path / "s.zarr", *PIXELS)
    _picture(photos / "cat" / "0.jpg", 99, 40)
    assert "source" in _refused(shell, "ingest", photos, tmp_path / "s.zarr", *PIXELS)


def test_seeds_and_indices_out_of_range(shell: Shell, photos: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    (photos / "cat" / "self.jpg").symlink_to(photos / "cat" / "self.jpg")
    shell.ok("ingest", photos, store, *PIXELS)
    assert "4294967295" in _refused(shell, "subset", store, "lt", "--seed", "5000000000")
    (tmp_path / "ids.txt").write_text("1_000\n")
    refused = _refused(shell, "subset", store, "f", "--rule", "file", "--indices", tmp_path / "ids.txt")
    assert "line 1" in refused


def test_mixed_encoders(shell: Shell, photos: Path, tmp_path: Path) -> None:
    shell.ok("ingest", photos, tmp_path / "s.zarr", *PIXELS)
    store = tmp_path / "s.zarr"
    message = _refused(shell, "ingest", photos, store, "--split", "test", "--encoder", "pixels:16")
    assert "n_features" in message


def test_resume_with_another_source_is_refused(shell: Shell, photos: Path, tmp_path: Path) -> None:
    shell.ok("ingest", photos, tmp_path / "s.zarr", *PIXELS)
    _picture(photos / "cat" / "new.jpg", 99)
    message = _refused(shell, "ingest", photos, tmp_path / "s.zarr", *PIXELS)
    assert "source" in message or "rows" in message


def test_label_outside_the_classes(shell: Shell, photos: Path, tmp_path: Path) -> None:
    shell.ok("ingest", photos, tmp_path / "s.zarr", *PIXELS)
    _picture(tmp_path / "test" / "eel" / "0.jpg", 0)
    _picture(tmp_path / "test" / "cat" / "0.jpg", 0)
    assert "'eel'" in _refused(shell, "ingest", tmp_path / "test", tmp_path / "s.zarr", "--split", "test")
    (tmp_path / "list.txt").write_text("photos/cat/0.jpg 0\nphotos/dog/5.jpg 2\n")
    message = _refused(shell, "ingest", tmp_path / "list.txt", tmp_path / "s.zarr", "--split", "val")
    assert "line 2" in message
    assert "2" in message


def test_one_row_and_zero_row_classes_train(shell: Shell, photos: Path, tmp_path: Path) -> None:
    for i in range(12):
        _picture(photos / "dog" / f"more{i}.jpg", 50 + i)
    _picture(photos / "eel" / "only.jpg", 77)
    (photos / "fox").mkdir()
    store = tmp_path / "s.zarr"
    shell.ok("ingest", photos, store, *PIXELS)
    for name, how in {
        "la": (),
        "ng": ("--sampler", "neighbor-gauss"),
        "dup": ("--sampler", "duplicate"),
        "gda": ("--head", "gda"),
        "ncm": ("--head", "ncm"),
    }.items():
        shell.ok("train", store, "--out", tmp_path / name, *how)
        result = shell.ok("evaluate", tmp_path / name, "--store", store, "--split", "train", "--json").json
        model = result["models"][0]
        assert np.isfinite(model["overall"]["value"])
        assert model["class_accuracy"][3] is None
    sampled = shell.ok("sample", store, "--name", "s")
    assert "1 classes have no real row" in sampled.err


def test_nan_embeddings_are_failed_rows(photos: Path, tmp_path: Path) -> None:
    class Poisoned:
        """Pixels, with NaN in the second row of every batch."""

        def __init__(self, encoder: Encoder) -> None:
            self._encoder = encoder

        def __getattr__(self, name: str) -> Any:
            return getattr(self._encoder, name)

        def encode(self, batch: Any) -> FloatArray:
            X = self._encoder.encode(batch).copy()
            X[1] = np.nan
            return X

    report = ingest(
        open_source(photos), Poisoned(open_encoder("pixels:8")), tmp_path / "s.zarr", "train", batch_size=10
    )
    split = open_store(tmp_path / "s.zarr").split("train")
    assert report.n_failed == 1
    assert split.status[1] == RowStatus.NON_FINITE
    assert 1 not in split.rows().row_ids
    assert np.isfinite(split.rows().read(0, 9)).all()


def test_unwritable_store(shell: Shell, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = _refused(shell, "ingest", photos, tmp_path / "file" / "s.zarr", *PIXELS)
    assert "cannot" in message
    assert "file" in message


def test_not_a_store_and_not_a_model(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "s.zarr").mkdir()
    (tmp_path / "s.zarr" / "zarr.json").write_text("{}")
    assert "s.zarr" in _refused(shell, "info", tmp_path / "s.zarr")
    assert "m" in _refused(shell, "predict", tmp_path / "m", tmp_path)


def test_unknown_names_are_refused_by_name(shell: Shell, photos: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    shell.ok("ingest", photos, store, *PIXELS)
    train = ("train", store, "--out", tmp_path / "m")
    assert "trian" in _refused(shell, *train, "--split", "trian")
    assert "neighbor-gauss" in _refused(shell, *train, "--sampler", "neighbour-gauss")
    assert "gda" in _refused(shell, *train, "--head", "lda")
    assert "ce" in _refused(shell, *train, "--loss", "xe")
    assert "pixels" in _refused(shell, "ingest", photos, tmp_path / "t.zarr", "--encoder", "pixel")
    assert not (tmp_path / "m").exists()


def test_a_file_that_may_not_be_used_is_one_line(monkeypatch: pytest.MonkeyPatch, shell: Shell) -> None:
    def fail(**_: object) -> None:
        raise PermissionError(13, "Permission denied", "birds.zarr/zarr.json")

    monkeypatch.setattr("ltstore_cli.app.app", fail)
    refused = shell("info")
    assert refused.code == 1
    assert refused.err == "error: cannot use birds.zarr/zarr.json: Permission denied\n"

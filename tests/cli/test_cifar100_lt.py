"""CIFAR-100-LT on real rows: the accuracies that the documents promise. Skips where the real data is absent."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from ltstore.rows import normalize_rows
from ltstore.store import create_store, open_store
from ltstore.types import EncoderIdentity, FloatArray, IntArray, RowStatus
from support.shell import Shell

ENCODER_OPTIONS = ("size=224", "mean=127", "scale=0.0078431", "resize=bicubic")


def _write(path: Path, split: str, X: FloatArray, labels: IntArray) -> None:
    store = (
        open_store(path)
        if path.exists()
        else create_store(
            path,
            encoder=EncoderIdentity(encoder="import", model="mobilenetv2", n_features=X.shape[1]),
            class_names=[str(c) for c in range(100)],
        )
    )
    with store.begin_split(split, n_rows=len(X), source_digest="npz") as writer:
        for shard in writer.pending:
            start, stop = writer.plan.shard_range(shard)
            n = stop - start
            writer.write_shard(
                shard,
                embeddings=X[start:stop],
                labels=labels[start:stop],
                status=np.full(n, RowStatus.OK, np.uint8),
                keys=[f"{split}/{i:05}" for i in range(start, stop)],
                errors=[None] * n,
            )
        writer.finish()


@pytest.fixture(scope="module")
def cifar(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the MobileNetV2 rows of the imbalance-100 cut and of the test images."""
    path = tmp_path_factory.mktemp("cifar") / "cifar100.zarr"
    rows = np.load(real_data / "cifar100" / "mobilenetv2_embeddings_u8.npz")
    cut = np.load(real_data / "longtail" / "cifar100_lt_if100_seed0_ldam_order.npy")
    chosen = np.searchsorted(rows["train_index"], np.sort(cut))
    scale = np.float32(rows["scale"])
    _write(path, "train", rows["train_q"][chosen] * scale, rows["train_y"][chosen].astype(np.int64))
    _write(path, "test", rows["test_q"] * scale, rows["test_y"].astype(np.int64))
    return path


def test_heads_reach_their_figures(shell: Shell, cifar: Path, tmp_path: Path) -> None:
    shell.ok("index", cifar)
    heads = {
        "ce": ("--loss", "ce"),
        "la": (),
        "gda": ("--head", "gda"),
        "neighbor-gauss": ("--sampler", "neighbor-gauss"),
    }
    for name, how in heads.items():
        shell.ok("train", cifar, "--out", tmp_path / name, *how)
    result = shell.ok("evaluate", *[tmp_path / name for name in heads], "--store", cifar, "--json").json
    found = {m["name"]: m for m in result["models"]}
    overall = {name: m["overall"]["value"] for name, m in found.items()}
    assert 0.42 < overall["ce"] < 0.47
    assert overall["la"] >= 0.535
    assert overall["gda"] >= 0.53
    assert overall["neighbor-gauss"] >= 0.53
    for name in ("la", "gda", "neighbor-gauss"):
        assert found[name]["few"]["value"] > found["ce"]["few"]["value"] + 0.2


def test_ingest_from_the_official_images_gives_the_published_rows(
    shell: Shell, real_data: Path, tmp_path: Path
) -> None:
    """From the pickles through the ONNX encoder: each row is nearest to the published row of its image.

    The published rows come from an 8-bit build of the network: alike (cosine about 0.97), not equal.
    """
    pytest.importorskip("onnxruntime")
    with tarfile.open(real_data / "cifar100" / "cifar-100-python.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    published = np.load(real_data / "cifar100" / "mobilenetv2_embeddings_u8.npz")
    rows = published["train_index"][::400]
    (tmp_path / "rows.txt").write_text("\n".join(map(str, rows)))
    options = [word for option in ENCODER_OPTIONS for word in ("--encoder-option", option)]
    onnx = f"onnx:{real_data / 'encoder' / 'mobilenet_v2_embed.onnx'}"
    source, store = tmp_path / "cifar-100-python", tmp_path / "s.zarr"
    shell.ok("ingest", source, store, "--indices", tmp_path / "rows.txt", "--encoder", onnx, *options)
    shell.ok("ingest", source, store, "--split", "test", "--limit", "5")  # the store knows its encoder
    view = open_store(store).split("train").rows()
    expected = normalize_rows(published["train_q"][::400].astype(np.float32))
    cosines = view.read(0, view.n_samples) @ expected.T
    assert cosines.diagonal().min() > 0.9
    np.testing.assert_array_equal(cosines.argmax(axis=1), np.arange(len(expected)))
    np.testing.assert_array_equal(view.labels, published["train_y"][::400])
    assert view.class_names[0] == "apple"

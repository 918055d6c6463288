"""ingest.clip_retrieval: photographs through one CLIP network, by ltstore and by clip-retrieval's inference."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench.case import Case, Size
from bench.data import made_jpegs, real_file
from bench.machine import ROOT
from bench.timing import Candidate, Workload, WrongResultError
from ltstore.types import Encoder

PEER = "clip-retrieval"
ARCHITECTURE = "ViT-S-32-alt"
PYTHON = os.environ.get("LTSTORE_BENCH_CLIP_RETRIEVAL", "")
COPIES = 2
LEAST_COSINE = 0.995


def build(size: Size) -> Iterator[Workload]:
    """Yield the one workload: random weights over ImageNet photographs and a broken one; pixels at toy size."""
    from ltstore.encode import ingest, open_encoder
    from ltstore.sources import open_source
    from ltstore.store import open_store

    photos = real_file("imagenet_samples")
    real = size == "full" and photos is not None
    with TemporaryDirectory() as name:
        directory = Path(name)
        folder = directory / "images" / "any"
        encoder: Encoder
        if real:
            encoder = open_encoder(f"open_clip:{ARCHITECTURE}/random", device="cpu")
            folder.mkdir(parents=True)
            for path in sorted(photos.glob("*.JPEG")) if photos is not None else ():
                for copy in range(COPIES):
                    shutil.copy(path, folder / f"{path.stem}-{copy}.jpg")
        else:
            encoder = open_encoder("pixels:32")
            made_jpegs(folder, 4)
        first = min(folder.iterdir())
        (folder / "broken.jpg").write_bytes(first.read_bytes()[:-2000])
        source = open_source(folder.parent, format="folder")
        n = source.n_samples
        store, out = directory / "store.zarr", directory / "out"

        def ours() -> Any:
            shutil.rmtree(store, ignore_errors=True)
            return ingest(source, encoder, store, "train")

        ours()
        expected = open_store(store).split("train").rows(normalize=True).read(0, n - 1)

        def check(name: str, result: Any) -> None:
            if name == PEER:  # the broken image has no row, and those after it have moved up
                X = np.concatenate([np.load(each) for each in sorted(result.glob("img_emb/*.npy"))])
            else:
                if (result.n_rows, result.n_failed) != (n, 1):
                    raise WrongResultError(f"{name}: {result.n_failed} of {result.n_rows} rows failed")
                X = open_store(store).split("train").rows(normalize=True).read(0, n - 1)
            if X.shape != expected.shape:
                raise WrongResultError(f"{name}: {X.shape} embeddings, expected {expected.shape}")
            cosine = (X.astype(np.float32) * expected).sum(axis=1)
            if not cosine.min() > LEAST_COSINE:
                raise WrongResultError(f"{name}: embeddings differ, cosine {cosine.min():.3f}")

        why = (
            "" if real else "the toy size has no network and no photographs: install them and run the full one"
        )
        if real and not PYTHON:
            why = (
                "install clip-retrieval in an environment of its own (it pins numpy 1.26 and pyarrow 15) and set "
                "LTSTORE_BENCH_CLIP_RETRIEVAL to that environment's python"
            )
        settings = {"n_images": n, "broken": 1, "encoder": encoder.spec.split("/")[0]}
        variant = (
            f"{ARCHITECTURE}, ImageNet photographs, one broken" if real else "pixels, made JPEGs, one broken"
        )
        candidates = [Candidate(name="ingest", run=ours, work=n)]
        if why:
            yield Workload(
                variant=variant,
                candidates=tuple(candidates),
                check=check,
                unit="images",
                settings=settings,
                skipped={PEER: why},
            )
            return
        with _peer(PYTHON, f"open_clip:{ARCHITECTURE}/{_checkpoint(directory)}", folder, out) as run:
            candidates.append(Candidate(name=PEER, run=run, work=n, peer=PEER, aim=1.0))
            yield Workload(
                variant=variant, candidates=tuple(candidates), check=check, unit="images", settings=settings
            )


def _checkpoint(directory: Path) -> Path:
    """Write the weights that ltstore calls random."""
    import open_clip
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.create_model(ARCHITECTURE)
    path = directory / "weights.pt"
    torch.save(model.state_dict(), path)
    return path


@contextmanager
def _peer(python: str, model: str, folder: Path, out: Path) -> Iterator[Any]:
    """Yield what embeds the folder once, in a process that keeps its model; it returns where the embeddings are."""
    words = [python, str(ROOT / "bench" / "clip_retrieval_driver.py"), model]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def run() -> Path:
            shutil.rmtree(out, ignore_errors=True)
            print(folder, out, sep="\t", file=process.stdin, flush=True)
            if process.stdout is None or process.stdout.readline() != "done\n":
                raise RuntimeError(f"{python} could not run {PEER} (exit code {process.wait()})")
            return out

        try:
            yield run
        finally:
            process.stdin.close()


CASE = Case(
    name="ingest.clip_retrieval",
    definition="images/s of ingest, files to store / images/s of clip-retrieval's inference, files to .npy",
    build=build,
    cores=None,
    rounds=5,
    clock="wall",
    note="Of 61 images one is cut short: ingest keeps its row, with the reason; clip-retrieval has 60 rows, and only "
    "the file names in its metadata tell which one is missing.",
)

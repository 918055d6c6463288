"""Runs in clip-retrieval's own environment: embeds a folder once for each line on stdin.

What its worker does, with its own reader, mapper and writer, for the one partition of a run. The model is loaded once,
at the first folder, and there is no logger: it would start two processes a run, which import everything again.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import Any

BATCH_SIZE = 32


def main() -> None:
    """Read "FOLDER<tab>OUT" lines, answer "done" to each on stdout."""
    from all_clip import load_clip
    from clip_retrieval.clip_inference.mapper import ClipMapper
    from clip_retrieval.clip_inference.reader import FilesReader
    from clip_retrieval.clip_inference.runner import Runner
    from clip_retrieval.clip_inference.writer import NumpyWriter

    answers = sys.stdout
    model: dict[str, Any] = {"clip_model": sys.argv[1], "use_jit": False, "warmup_batch_size": BATCH_SIZE}
    images = {"enable_image": True, "enable_text": False, "enable_metadata": False}
    for line in sys.stdin:
        folder, out = line.rstrip("\n").split("\t")

        def reader(sampler: Any, folder: str = folder) -> Any:
            _, preprocess, tokenizer = load_clip(**model, clip_cache_path=None)
            return FilesReader(sampler, preprocess, tokenizer, folder, BATCH_SIZE, 4, **images)

        def mapper() -> Any:
            return ClipMapper(**images, use_mclip=False, mclip_model="", **model)

        def writer(number: int, out: str = out) -> Any:
            return NumpyWriter(partition_id=number, output_folder=out, output_partition_count=1, **images)

        with redirect_stdout(sys.stderr):
            Runner(reader, mapper, writer, _NoLogger, 1)(0)
        print("done", file=answers, flush=True)


class _NoLogger:
    """Keeps nothing."""

    def __init__(self, number: int) -> None:
        self.number = number

    def start(self) -> None:
        """Nothing to start."""

    def end(self) -> None:
        """Nothing to end."""

    def __call__(self, stats: dict[str, float]) -> None:
        """Nothing to keep."""


if __name__ == "__main__":
    main()

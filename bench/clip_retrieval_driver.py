"""Runs in clip-retrieval's own environment: embeds a folder once for each line on stdin.

Standard library and clip-retrieval alone. The model is loaded once, at the first folder, as its own worker keeps it.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout


def main() -> None:
    """Read "FOLDER<tab>OUT" lines, answer "done" to each on stdout."""
    from clip_retrieval.clip_inference.main import main as inference

    model = sys.argv[1]
    answers = sys.stdout
    for line in sys.stdin:
        folder, out = line.rstrip("\n").split("\t")
        with redirect_stdout(sys.stderr):
            inference(folder, out, enable_text=False, clip_model=model, use_jit=False, batch_size=32)
        print("done", file=answers, flush=True)


if __name__ == "__main__":
    main()

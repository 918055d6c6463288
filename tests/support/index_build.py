"""Build an index of made rows and say what it took: memory, seconds, and what it finds.

PYTHONPATH=tests python -m support.index_build --kind ivf --rows 1000000 --features 512
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from ltstore.neighbors import KINDS, build_index
from support.lazy_rows import LazyRows


def resident(name: str) -> int:
    """Return the bytes of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description="Build an index of made rows.")
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=512)
    arguments = parser.parse_args()
    build_index(LazyRows(1000, arguments.features), kind="ivf", device="cpu")  # loads what is loaded once
    rows = LazyRows(arguments.rows, arguments.features)
    before, began = resident("VmRSS:"), time.perf_counter()
    index = build_index(rows, kind=arguments.kind, device="cpu", recall=0.9)
    assert index.report is not None
    found = {
        "kind": index.kind,
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time(), 1),
        "peak_bytes": resident("VmHWM:") - before,
        "index_bytes": index.plan.n_bytes,
        "recall": index.report.recall,
        "parameters": index.parameters,
        "milliseconds": index.report.milliseconds,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()

"""What a figure was measured on: a number without it says nothing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ltstore.cores import cpu_flags

ROOT = Path(__file__).resolve().parents[1]
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "f16c", "asimd", "sve")
PACKAGES = (
    *("ltstore", "numpy", "scipy", "zarr", "numba", "torch", "faiss-gpu", "faiss-cpu", "onnxruntime"),
    *("scikit-learn", "Pillow", "typer", "rich", "tensorstore", "pylance", "zarrs"),
)


@cache
def machine() -> dict[str, Any]:
    """Return the processor, its cores and the flags that matter, memory, GPU and the state of the load."""
    cpuinfo = _read("/proc/cpuinfo")
    model = _field(cpuinfo, "model name") or platform.processor() or platform.machine()
    total = _field(_read("/proc/meminfo"), "MemTotal").split()
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "flags": [flag for flag in FLAGS if flag in cpu_flags()],
        "memory_bytes": int(total[0]) * 1024 if total else None,
        "gpu": _gpu(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
    }


def load() -> float | None:
    """Return the load of the last minute, the noise that the figures were taken in."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


@cache
def versions() -> dict[str, str]:
    """Return Python's version and that of each package that is installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def commit() -> str:
    """Return the commit measured, with "+" where measured code differs from it; "" outside a checkout."""
    head = _git("rev-parse", "--short=12", "HEAD")
    return head + (
        "+"
        if head and _git("status", "--porcelain", "--", "ltstore", "cli", "bench/*.py", "bench/cases")
        else ""
    )


def today() -> str:
    """Return the date in UTC."""
    return datetime.now(UTC).date().isoformat()


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _gpu() -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    words = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip().split("\n")[0] or None if done.returncode == 0 else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _field(text: str, name: str) -> str:
    line = next((line for line in text.splitlines() if line.partition(":")[0].strip() == name), "")
    return line.partition(":")[2].strip()


def available_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""What this machine can do, and why not: looked at only when asked, because it imports everything."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from ltstore.provenance import versions


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the doctor's findings; state is "ok", "missing" or "broken"."""

    name: str
    state: str
    detail: str

    def to_json(self) -> dict[str, str]:
        """Return a plain dict."""
        return asdict(self)


def check_machine() -> list[Check]:
    """Return what was found of Python, processor, packages, GPU, FAISS, Numba and encoders.

    Notes
    -----
    Imports torch, faiss, numba, open_clip, timm and onnxruntime: several seconds.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    checks = [
        Check(name="python", state="ok", detail=f"{platform.python_version()} on {platform.platform()}"),
        Check(name="cores", state="ok", detail=str(cores)),
        Check(name="ltstore", state="ok", detail=versions().get("ltstore", "not installed")),
    ]
    probes: dict[str, Callable[[], str]] = {
        "zarr": lambda: _imported("zarr", "zarr"),
        "numba": _numba,
        "torch": _torch,
        "faiss": _faiss,
        "open_clip": lambda: _imported("open_clip", "open_clip_torch"),
        "timm": lambda: _imported("timm", "timm"),
        "onnxruntime": _onnxruntime,
    }
    optional = {"onnxruntime": "pip install 'ltstore[onnx]' to use onnx: encoders"}
    for name, probe in probes.items():
        try:
            checks.append(Check(name=name, state="ok", detail=probe()))
        except ImportError as err:
            missing = name in optional and isinstance(err, ModuleNotFoundError)
            detail = optional[name] if missing else f"{type(err).__name__}: {err}"
            checks.append(Check(name=name, state="missing" if missing else "broken", detail=detail))
        except Exception as err:  # noqa: BLE001 - a broken package may raise anything, and that is the finding
            checks.append(Check(name=name, state="broken", detail=f"{type(err).__name__}: {err}"))
    return checks


def _imported(module: str, package: str) -> str:
    import_module(module)
    return version(package)


def _numba() -> str:
    numba = import_module("numba")
    return f"{version('numba')}, {numba.config.NUMBA_NUM_THREADS} threads"


def _torch() -> str:
    torch = import_module("torch")
    if not torch.cuda.is_available():
        built = torch.version.cuda
        return f"{torch.__version__}, CPU ({f'built for CUDA {built}, no GPU found' if built else 'CPU build'})"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"{torch.__version__}, CUDA {torch.version.cuda}: {', '.join(names)}"


def _faiss() -> str:
    faiss = import_module("faiss")
    gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    found = []
    for package in ("faiss-gpu", "faiss-cpu"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return f"{', '.join(found) or faiss.__version__}, {gpus} GPUs, {faiss.get_compile_options().strip()}"


def _onnxruntime() -> str:
    ort = import_module("onnxruntime")
    return f"{ort.__version__}, {', '.join(ort.get_available_providers())}"

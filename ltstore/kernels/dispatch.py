"""Which backend runs: asked for by name, or chosen and said why."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from ltstore.errors import BackendUnavailableError, ConfigError
from ltstore.kernels.contract import SoftmaxGradient, SoftmaxTerms, check_arguments
from ltstore.types import FloatArray, IntArray

# name -> (module of the backend, package that it needs), fastest first; "auto" takes one that runs on the CPU
_MODULES = {
    "numba": ("ltstore.kernels.numba_cpu", "numba"),
    "reference": ("ltstore.kernels.reference", "numpy"),
    "triton": ("ltstore.kernels.triton_gpu", "triton"),
}
BACKENDS = tuple(_MODULES)
GPU_BACKEND = "triton"


def resolve_backend(backend: str = "auto") -> tuple[str, str]:
    """Turn a backend setting into (name, reason).

    Parameters
    ----------
    backend : {"auto", "numba", "reference", "triton"}
        "auto" takes the fastest of the CPU that is installed. A name never falls back.

    Raises
    ------
    BackendUnavailableError
        The named backend cannot run here.
    ConfigError
        There is no backend of that name.
    """
    if backend == "auto":
        on_cpu = (name for name in BACKENDS if name != GPU_BACKEND)
        name = next(name for name in on_cpu if find_spec(_MODULES[name][1]))
        why = "fastest installed" if name == BACKENDS[0] else f"{BACKENDS[0]} is not installed"
        return name, f"auto: {why}"
    if backend not in _MODULES:
        raise ConfigError(f"backend must be one of auto, {', '.join(BACKENDS)}; found {backend!r}")
    package = _MODULES[backend][1]
    if find_spec(package) is None:
        comes = " (it comes with torch for CUDA)" if backend == GPU_BACKEND else ""
        raise BackendUnavailableError(
            f"backend {backend!r} needs the package {package}{comes}, which is not installed: "
            "install it or use --backend auto"
        )
    if backend == GPU_BACKEND:
        _check_gpu()
    return backend, "asked for by name"


def _check_gpu() -> None:
    """Raise BackendUnavailableError where Triton's kernels have nothing to run on; imports torch."""
    from ltstore.kernels.triton_gpu import interpreted

    torch = import_module("torch")
    if not interpreted() and not torch.cuda.is_available():
        raise BackendUnavailableError(
            f"backend {GPU_BACKEND!r} needs a CUDA GPU, and torch {torch.__version__} finds none: use --backend auto, "
            "or set TRITON_INTERPRET=1 to try the kernels on the CPU"
        )


def load_backend(name: str) -> SoftmaxGradient:
    """Return the kernel of a resolved backend name; imports (and, the first time, compiles) it."""
    function: SoftmaxGradient = import_module(_MODULES[name][0]).softmax_gradient
    return function


def softmax_gradient(
    logits: FloatArray,
    labels: IntArray,
    offsets: FloatArray,
    weights: FloatArray | None = None,
    *,
    margins: FloatArray | None = None,
    smoothing: FloatArray | None = None,
    first: int = 0,
    backend: str = "auto",
) -> float:
    """Overwrite logits with the gradient of the softmax cross entropy and return the summed loss.

    With nothing but offsets: logits[i, c] <- weights[i] * (softmax(logits + offsets)[i, c] - [c == labels[i]]).
    The whole definition is that of `ltstore.kernels.contract`.

    Parameters
    ----------
    logits : (n, L) float32, C-contiguous
        The C columns from `first` on are modified.
    labels : (n,) int64
        In [0, C).
    offsets, margins, smoothing : (C,) float32
        See `ltstore.kernels.contract.SoftmaxTerms`.
    weights : (n,) float32, optional
    first : int
    backend : {"auto", "numba", "reference", "triton"}

    Returns
    -------
    float
        Sum over rows of weight times cross entropy; not finite where a logit is NaN or infinite.

    Raises
    ------
    DataError, ConfigError, LabelError
        Arguments do not fit together (`ltstore.kernels.contract.check_arguments`).
    BackendUnavailableError, ConfigError
        See `resolve_backend`.
    """
    terms = SoftmaxTerms(offsets, margins, smoothing)
    check_arguments(logits, labels, terms, weights, first)
    return load_backend(resolve_backend(backend)[0])(logits, labels, terms, weights, first)

"""Where a pass is computed, and in what precision: asked for, or chosen and said why."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ltstore.cores import cpu_flags
from ltstore.errors import BackendUnavailableError, ConfigError
from ltstore.kernels.dispatch import GPU_BACKEND

if TYPE_CHECKING:
    from ltstore.engine import Engine
    from ltstore.linear.objective import PassSums
    from ltstore.linear.settings import TrainSettings
    from ltstore.stream import TrainingStream
    from ltstore.types import Moments

PRECISIONS = ("auto", "float32", "tf32", "bf16")
LEAST_FLOPS = 1e11  # of a pass: about a second on one core, so that starting the GPU is soon made good
LEAST_COLUMNS = 64  # logits of a row, from which products are most of a pass on a CPU
_LEAST_TOLERANCE = 1e-3  # nearer to the least objective, passes in bf16 end in rounding
_MOST_ROUNDING = 1e-4  # by bf16, in parts of the variance within classes


class Evaluator(Protocol):
    """A way to add up a pass other than that of `ltstore.linear.objective.PassSums`."""

    def __call__(self, stream: TrainingStream, sums: PassSums) -> float:
        """Do what `ltstore.linear.objective.PassSums.add_stream` says."""

    @property
    def rows_are(self) -> str:
        """What becomes of the rows, in words for the record."""


@dataclass(frozen=True)
class Placement:
    """A device as a fact.

    Attributes
    ----------
    device : str
        "cpu" or "cuda:0", ...; "cuda" of workers, each of which has its own.
    precision : {"float32", "tf32", "bf16"}
        Of the matrix products.
    reason, precision_reason : str
        Why this device and this precision.
    evaluator : Evaluator, optional
        What makes the passes; None is NumPy, or what workers make for themselves.
    """

    device: str
    precision: str
    reason: str
    evaluator: Evaluator | None = None
    precision_reason: str = "asked for by name"

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device != "cpu"


def resolve_device(
    settings: TrainSettings, stream: TrainingStream, moments: Moments, n_heads: int = 1
) -> Placement:
    """Turn the settings device and precision into a placement.

    Device "auto" takes a GPU where there is one and Triton for it, the solver makes whole passes, the backend is not
    one of the CPU, and a pass is at least 1e11 flops (4 N D C for each head); or where tf32 or the backend triton is
    asked for. torch is not imported for less than that.

    Precision "auto" is float32, but bf16 on a CPU with instructions for it where a pass is that long and its products
    are most of it (64 logits a row), no backend is named, the tolerance is no finer than 1e-3, and the moments say that
    rounding the rows adds next to nothing to them: at most 1e-4 of the variance within classes.

    Raises
    ------
    BackendUnavailableError
        A device that was asked for, or the GPU that a precision or backend needs, is not there.
    """
    n_columns = stream.n_classes * n_heads
    n_flops = 4.0 * stream.n_samples * stream.n_features * n_columns
    device, reason = _resolve(settings, n_flops)
    precision, why = settings.precision, "asked for by name"
    if precision == "auto":
        precision, why = _precision(settings, device, n_flops, n_columns, moments)
    return Placement(device, precision, reason, _evaluator(device, precision), why)


def resolve_workers_device(settings: TrainSettings, engine: Engine) -> Placement:
    """Turn the settings device and precision into the placement of workers, each of which makes its own evaluator.

    "auto" takes GPUs where each worker has one of its own, unless the backend is one of the CPU.

    Raises
    ------
    ConfigError
        Passes with these settings cannot be shared, or not by threads.
    BackendUnavailableError
        GPUs were asked for, or are needed, and there are none.
    """
    check_shareable(settings)
    device, backend = settings.device, settings.backend
    auto = settings.precision == "auto"
    precision = "float32" if auto else settings.precision
    why = "auto: that of workers" if auto else "asked for by name"
    needed = device == "cuda" or precision == "tf32" or backend == GPU_BACKEND
    if not engine.own_processes and (needed or precision != "float32"):
        raise ConfigError(
            f"workers that are threads make their passes in float32 on CPU cores, found device {device!r}, precision "
            f"{precision!r} and backend {backend!r}: leave these out, or use engine processes or ray"
        )
    if needed and not engine.has_gpus:
        if not engine.shares_memory:
            raise BackendUnavailableError(
                "passes on GPUs were asked for and the workers take none: does the cluster have GPUs?"
            )
        _require(missing, "GPUs for workers", "use device cpu or auto")
    if needed:
        return Placement("cuda", precision, "asked for by name", precision_reason=why)
    if engine.has_gpus and device == "auto" and backend == "auto":
        return Placement("cuda", precision, "auto: each worker has a GPU", precision_reason=why)
    return Placement("cpu", precision, "workers make the passes on CPU cores", precision_reason=why)


def worker_evaluator(placement: Placement, number: int) -> Evaluator | None:
    """Return what makes the passes of worker `number`, on one of the GPUs that it sees.

    Raises
    ------
    BackendUnavailableError
        It is to use a GPU and sees none.
    """
    device = placement.device
    if placement.on_gpu:
        _require(missing, "a GPU for each worker", "look at what the machines of the cluster have installed")
        import torch

        device = f"cuda:{number % torch.cuda.device_count()}"
    return _evaluator(device, placement.precision)


def _evaluator(device: str, precision: str) -> Evaluator | None:
    if device == "cpu" and precision == "float32":
        return None
    from ltstore.linear.torch_pass import TorchEvaluator

    return TorchEvaluator(device, precision)


def check_shareable(settings: TrainSettings) -> None:
    """Raise ConfigError unless passes with these settings can be shared."""
    if settings.solver != "lbfgs":
        raise ConfigError(
            f"steps of solver {settings.solver!r} come one after the other and cannot be shared among workers: leave "
            "workers out, or use solver lbfgs"
        )
    if settings.device.startswith("cuda:"):
        raise ConfigError(f"workers share out the GPUs themselves, found device {settings.device!r}: say cuda")


def check_device(settings: TrainSettings) -> None:
    """Raise ConfigError where device and precision are none, or contradict other settings."""
    device, precision, backend = settings.device, settings.precision, settings.backend
    if not isinstance(device, str) or not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N; found {device!r}")
    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}; found {precision!r}")
    if device == "cpu" and precision == "tf32":
        raise ConfigError("precision 'tf32' is one of GPUs, and device is 'cpu': use float32 or bf16")
    if device == "cpu" and backend == GPU_BACKEND:
        raise ConfigError(f"backend {backend!r} is that of a GPU, and device is 'cpu': leave one of them out")
    of_cpu = backend not in ("auto", GPU_BACKEND)
    if of_cpu and (device.startswith("cuda") or precision == "tf32"):
        raise ConfigError(
            f"backend {backend!r} is one of the CPU, and device {device!r} with precision {precision!r} a GPU: leave "
            "the backend out"
        )
    if settings.solver != "lbfgs" and (
        device.startswith("cuda") or precision not in ("auto", "float32") or backend == GPU_BACKEND
    ):
        raise ConfigError(
            f"solver {settings.solver!r} steps on the CPU in float32: leave device, precision and backend out, or use "
            "lbfgs"
        )


def _resolve(settings: TrainSettings, n_flops: float) -> tuple[str, str]:
    device = settings.device
    if device == "cpu":
        return "cpu", "asked for by name"
    if device != "auto":
        number = int(device.partition(":")[2] or 0)
        _require(lambda: missing(number), f"device {device!r}", "use device cpu or auto")
        return f"cuda:{number}", "asked for by name"
    if settings.solver != "lbfgs":
        return "cpu", f"auto: {settings.solver} makes small steps"
    if settings.backend not in ("auto", GPU_BACKEND):
        return "cpu", f"auto: backend {settings.backend} is one of the CPU"
    for name, value, of_gpu in (
        ("precision", settings.precision, "tf32"),
        ("backend", settings.backend, GPU_BACKEND),
    ):
        if value == of_gpu:
            _require(missing, f"{name} {value!r}", f"leave {name} out")
            return "cuda:0", f"auto: {name} {value} needs a GPU"
    if n_flops < LEAST_FLOPS:
        return "cpu", f"auto: a pass is {n_flops:.1g} flops, a GPU pays from {LEAST_FLOPS:.0g}"
    lacking = missing()
    if lacking:
        return "cpu", f"auto: {lacking}"
    return "cuda:0", f"auto: a pass is {n_flops:.1g} flops"


def _precision(
    settings: TrainSettings, device: str, n_flops: float, n_columns: int, moments: Moments
) -> tuple[str, str]:
    if device != "cpu":
        return "float32", "auto: that of GPUs unless told"
    if settings.backend != "auto":
        return "float32", f"auto: backend {settings.backend}"
    if settings.solver != "lbfgs" or settings.tolerance < _LEAST_TOLERANCE:
        return "float32", f"auto: {settings.solver} to tolerance {settings.tolerance:g}"
    if precision_of_cpu(n_flops, n_columns) == "float32":
        return "float32", "auto: short passes, or no instructions for bf16"
    rounding = rounding_share(moments)
    if not rounding <= _MOST_ROUNDING:
        return "float32", f"auto: bf16 would add {rounding:.1g} of the variance within classes to the rows"
    return "bf16", f"auto: a pass is {n_flops:.1g} flops, and rounding adds {rounding:.1g} of the variance"


def precision_of_cpu(n_flops: float, n_columns: int) -> str:
    """Return the precision in which a pass of so many flops and logits a row is fastest on this CPU."""
    has_bf16 = not cpu_flags().isdisjoint(("avx512_bf16", "amx_bf16"))
    return "bf16" if has_bf16 and n_flops >= LEAST_FLOPS and n_columns >= LEAST_COLUMNS else "float32"


def rounding_share(moments: Moments) -> float:
    """Return the variance that rounding rows to bf16 adds to them, in parts of that within classes.

    A number x is off by at most 2^-8 |x|, evenly spread: x^2 2^-16 / 3 at most. Rows around 0 give some 5e-6; rows far
    from it for their spread give more, 1e-4 at a mean of 4 standard deviations. inf where classes have no variance.
    """
    shares = moments.counts / max(moments.counts.sum(), 1)
    within = float(np.trace(moments.pooled))
    squares = within + float(shares @ (moments.means**2).sum(axis=1))
    return 2.0**-16 / 3 * squares / within if within > 0 else float("inf")


def missing(number: int = 0) -> str:
    """Return what keeps GPU `number` from being used, "" where nothing does; imports torch."""
    import torch

    if not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no CUDA GPU"
    if number >= torch.cuda.device_count():
        return f"torch finds {torch.cuda.device_count()} GPUs, numbered from 0"
    if find_spec("triton") is None:
        return "the package triton, which comes with torch for CUDA, is not installed"
    return ""


def _require(lacking: Callable[[], str], what: str, remedy: str) -> None:
    found = lacking()
    if found:
        raise BackendUnavailableError(f"{what} was asked for and {found}: {remedy}")

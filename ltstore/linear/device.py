"""Where a pass is computed, and in what precision: asked for, or chosen and said why."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

from ltstore.errors import BackendUnavailableError, ConfigError
from ltstore.kernels.dispatch import GPU_BACKEND

if TYPE_CHECKING:
    from ltstore.linear.objective import Evaluation, Objective, Point
    from ltstore.linear.settings import TrainSettings
    from ltstore.stream import TrainingStream

PRECISIONS = ("float32", "tf32", "bf16")
LEAST_FLOPS = 1e11  # of a pass: about a second on one core, so that starting the GPU is soon made good


class Evaluator(Protocol):
    """A way to make a pass other than that of `ltstore.linear.objective`."""

    def __call__(self, objectives: Sequence[Objective], points: Sequence[Point]) -> list[Evaluation]:
        """Do what `ltstore.linear.objective.evaluate_together` says."""

    @property
    def rows_are(self) -> str:
        """What becomes of the rows, in words for the record."""


@dataclass(frozen=True)
class Placement:
    """A device as a fact.

    Attributes
    ----------
    device : str
        "cpu" or "cuda:0", ...
    precision : {"float32", "tf32", "bf16"}
        Of the matrix products.
    reason : str
        Why this device.
    evaluator : Evaluator, optional
        What makes the passes; None is NumPy.
    """

    device: str
    precision: str
    reason: str
    evaluator: Evaluator | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device != "cpu"


def resolve_device(settings: TrainSettings, stream: TrainingStream, n_heads: int = 1) -> Placement:
    """Turn the settings device and precision into a placement.

    "auto" takes a GPU where there is one and Triton for it, the solver makes whole passes, the backend is not one of
    the CPU, and a pass is at least 1e11 flops (4 N D C for each head); or where tf32 or the backend triton is asked
    for. torch is not imported for less than that.

    Raises
    ------
    BackendUnavailableError
        A device that was asked for, or the GPU that a precision or backend needs, is not there.
    """
    device, reason = _resolve(settings, 4.0 * stream.n_samples * stream.n_features * stream.n_classes * n_heads)
    evaluator: Evaluator | None = None
    if device != "cpu" or settings.precision != "float32":
        from ltstore.linear.torch_pass import TorchEvaluator

        evaluator = TorchEvaluator(device, settings.precision)
    return Placement(device, settings.precision, reason, evaluator)


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
        device.startswith("cuda") or precision != "float32" or backend == GPU_BACKEND
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

"""The training objective that the cases of the trainer make passes of."""

from __future__ import annotations

from typing import Any

from ltstore.types import DoubleArray, Moments


def made_objective(
    stream: Any,
    moments: Moments,
    *,
    tau: float = 1.0,
    l2: float = 1e-2,
    center: DoubleArray | None = None,
    backend: str = "auto",
    metric: Any = None,
    precision: str = "float32",
) -> Any:
    """Return the objective of a stream with the plain penalty, its centre the mean of the stream unless given."""
    evaluator = None
    if precision != "float32":
        from ltstore.linear.torch_pass import TorchEvaluator

        evaluator = TorchEvaluator("cpu", precision)
    from ltstore.kernels import resolve_backend
    from ltstore.linear.metric import within_class_metric
    from ltstore.linear.objective import Objective

    return Objective(
        stream,
        within_class_metric(moments) if metric is None else metric,
        stream.class_shares @ moments.means if center is None else center,
        tau=tau,
        l2=l2,
        penalty="plain",
        backend=resolve_backend(backend)[0],
        evaluator=evaluator,
    )

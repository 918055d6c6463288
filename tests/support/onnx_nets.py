"""Small ONNX networks that tests write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


def write_net(
    path: Path, *, side: int | None = 8, layout: str = "NCHW", n_features: int = 5, extra_output: bool = False
) -> Path:
    """Write a network that averages over the image and multiplies by a fixed (3, n_features) matrix."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    pytest.importorskip("onnxruntime")
    sides = [side or "H", side or "W"]
    shape = ["N", 3, *sides] if layout == "NCHW" else ["N", *sides, 3]
    weight = np.random.default_rng(0).standard_normal((3, n_features)).astype(np.float32)
    axes = [2, 3] if layout == "NCHW" else [1, 2]
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=axes, keepdims=0),
        helper.make_node("MatMul", ["mean", "weight"], ["embedding"]),
    ]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", n_features])]
    if extra_output:
        outputs.insert(0, helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["N", 3]))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        outputs,
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return path


def net_weight(n_features: int = 5) -> np.ndarray:
    """Return the matrix of `write_net`."""
    return np.random.default_rng(0).standard_normal((3, n_features)).astype(np.float32)

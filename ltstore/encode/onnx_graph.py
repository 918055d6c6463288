"""Pieces of ONNX graphs, and how they are put together: from pixels to embeddings, and on to a head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ltstore.errors import BackendUnavailableError, ConfigError

PIXELS, EMBEDDINGS = "pixels", "embeddings"
"""The input and the output of an encoder's graph: (n, ...) uint8, (n, D) float32."""

OPSET, LEAST_OPSET, IR_VERSION = 17, 13, 8
MOST_BYTES = (1 << 31) - (1 << 20)
PREFIX = "encoder/"
"""Of every name of a network that others made."""


def onnx_package() -> Any:
    """Import onnx.

    Raises
    ------
    BackendUnavailableError
        It is not installed.
    """
    try:
        import onnx.compose
    except ImportError as err:
        raise BackendUnavailableError(
            "writing ONNX needs the package onnx: pip install 'ltstore[onnx]'"
        ) from err
    return onnx


class Step(NamedTuple):
    """One operator of a chain.

    Attributes
    ----------
    operator : str
        As ONNX names it; its first input is what the step before gives.
    constants : mapping of str to array
        Its other inputs.
    settings : mapping
        Its attributes.
    gives : str
        Name of its output; "" where nobody asks for it.
    """

    operator: str
    constants: Mapping[str, NDArray[Any]] = {}
    settings: Mapping[str, Any] = {}
    gives: str = ""


class Value(NamedTuple):
    """An input or output: dtype as ``onnx.TensorProto`` spells it, sizes that vary as names."""

    name: str
    dtype: str
    shape: Sequence[int | str]


def chain(steps: Sequence[Step], *, takes: Value, gives: Sequence[Value], like: Any = None) -> Any:
    """Return an ``onnx.ModelProto`` that takes one value and computes step after step.

    Parameters
    ----------
    steps : sequence of Step
        The last one gives the last of `gives`.
    takes : Value
    gives : sequence of Value
    like : ModelProto, optional
        Whose operator set and IR version it has, so that it can be joined with it; default those that every
        onnxruntime since 1.13 runs.
    """
    onnx = onnx_package()
    helper, nodes, before = onnx.helper, [], takes.name
    for i, step in enumerate(steps):
        made = gives[-1].name if step is steps[-1] else step.gives or f"{gives[-1].name}.{i}"
        nodes.append(helper.make_node(step.operator, [before, *step.constants], [made], **step.settings))
        before = made

    def value(each: Value) -> Any:
        kind = getattr(onnx.TensorProto, each.dtype)
        return helper.make_tensor_value_info(each.name, kind, list(each.shape))

    constants = {name: array for step in steps for name, array in step.constants.items()}
    graph = helper.make_graph(
        nodes,
        "ltstore",
        [value(takes)],
        [value(each) for each in gives],
        [onnx.numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in constants.items()],
    )
    opset = OPSET if like is None else opset_of(like)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], producer_name="ltstore")
    model.ir_version = IR_VERSION if like is None else like.ir_version
    return model


def opset_of(model: Any) -> int:
    """Return the version of ONNX's own operators in a model; ConfigError where it is older than can be joined."""
    opset = next((int(each.version) for each in model.opset_import if each.domain in ("", "ai.onnx")), OPSET)
    if opset < LEAST_OPSET:
        raise ConfigError(
            f"the encoder's file has ONNX operators of version {opset}, and a head can be joined to {LEAST_OPSET} or "
            "later: convert it with onnx.version_converter, or export the head alone"
        )
    return opset


def joined(first: Any, second: Any, links: Sequence[tuple[str, str]]) -> Any:
    """Return one model of two: `links` are (output of the first, input of the second)."""
    onnx = onnx_package()
    model = onnx.compose.merge_models(
        first, second, list(links), outputs=[each.name for each in second.graph.output]
    )
    versions = {each.domain: each.version for each in model.opset_import}
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(*each) for each in versions.items())
    return model


def prepared(model: Any) -> Any:
    """Return a model of others ready to be joined: no name of it can be one of ours, constants are no inputs."""
    onnx = onnx_package()
    model = onnx.compose.add_prefix(model, PREFIX, inplace=True)
    model.ir_version = max(model.ir_version, IR_VERSION)  # before 4 constants had to be inputs too
    constants = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return stripped(model)


def stripped(model: Any) -> Any:
    """Return the model without what its maker noted: torch writes its stack there, with the paths of this machine."""
    graph = model.graph
    for each in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del each.metadata_props[:]
        each.ClearField("doc_string")
    return model


def check_size(n_bytes: int) -> None:
    """Raise ConfigError where weights of so many bytes do not fit into one ONNX file."""
    if n_bytes > MOST_BYTES:
        raise ConfigError(
            f"the encoder's weights are {n_bytes / 1e9:.1f} GB, and one ONNX file holds less than 2.1: export the "
            "head alone, and run the encoder by the package it comes from"
        )

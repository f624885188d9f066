"""The strictly integer ONNX model: one lowering function per op of the IR."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

import onnx
from onnx import helper

from qexport.backends.onnx.arithmetic import lower_add, lower_border_bias, lower_clip, lower_rescale
from qexport.backends.onnx.emitter import ELEMENT, INT32, Emitter
from qexport.backends.onnx.movement import (
    lower_concat,
    lower_max_pool,
    lower_pad,
    lower_reshape,
    lower_slice,
    lower_sum_pool,
    lower_transpose,
)
from qexport.backends.onnx.norm import lower_l2_norm
from qexport.backends.onnx.products import lower_linear, range_with_zero
from qexport.backends.onnx.sums import plain_sums
from qexport.backends.onnx.threshold import lower_threshold
from qexport.backends.onnx.unfolded import is_unfolded, lower_convolution
from qexport.backends.onnx.windows import find_windows, lower_window
from qexport.errors import OptionError
from qexport.ir import Graph, verify
from qexport.ops import Conv2d

MIN_OPSET, MAX_OPSET = 18, 25
"""Operator set versions that are written: 18 has every operator used, 25 the packed 2-bit type."""

TENSORS_KEY = "qexport.tensors"
"""metadata_props key of the JSON list of values that carry IR tensors, in order."""

ABSORBED_KEY = "qexport.absorbed"
"""metadata_props key of the JSON list of IR tensors that no value carries, since an operator of theirs does more."""

FORMAT_KEY = "qexport.format"
"""metadata_props key of the flavour: "onnx" or "onnx-qdq"."""

LOWERINGS: dict[str, Callable[..., str]] = {
    "add": lower_add,
    "border_bias": lower_border_bias,
    "clip": lower_clip,
    "concat": lower_concat,
    "conv2d": lower_convolution,
    "l2_norm": lower_l2_norm,
    "linear": lower_linear,
    "max_pool": lower_max_pool,
    "pad": lower_pad,
    "rescale": lower_rescale,
    "reshape": lower_reshape,
    "slice": lower_slice,
    "sum_pool": lower_sum_pool,
    "threshold": lower_threshold,
    "transpose": lower_transpose,
}
"""Op kind -> function (emitter, op, *input tensors) that emits nodes and returns the value that carries the result."""


def to_onnx(graph: Graph, *, metadata: Mapping[str, str], opset: int = MAX_OPSET) -> onnx.ModelProto:
    """Write an integer graph as an ONNX model that computes the same integers.

    Every IR tensor X is the value X of the model, [N, *shape] with a dynamic batch axis N: int8 or uint8 where the
    proven range fits, else int32; graph outputs are int32. Accumulators and sums that only a threshold reads may be
    absorbed (windows.py, sums.py); ABSORBED_KEY names them. No value has a float type but the constant 1 that
    QLinearConv takes as its scales.

    Args:
        graph: verified integer graph.
        metadata: strings for metadata_props; the keys of this module are added.
        opset: version of the default operator set, 18 to 25.

    Returns:
        a model that onnx.checker accepts; equal inputs give equal bytes.

    Raises:
        OptionError: the opset is not supported.
        GraphError: the graph is not a valid integer graph.
        AccumulatorError: an intermediate would leave 64 bits.
    """
    check_opset(opset)
    verify(graph, require_integer=True)
    names, graph = [node.name for node in graph.nodes], plain_sums(graph)
    e = Emitter(graph, opset)
    windows = find_windows(graph)
    fused = {window.conv.name for window in windows.values()}
    e.as_uint8 = _read_as_uint8(graph, fused)
    for name in graph.inputs:
        e.declare(name, e.carrier(name))
    carried = [name for name in names if name in graph.types and name not in fused]
    absorbed = [name for name in names if name not in carried]
    for node in graph.nodes:
        if node.name in fused:
            continue
        e.enter(node.name)
        if node.name in windows:
            value = lower_window(e, windows[node.name])
        else:
            value = LOWERINGS[node.op.kind](e, node.op, *node.inputs)
        e.bind(value, node.name, INT32 if node.name in graph.outputs else e.carrier(node.name))
    return assemble(e, {**metadata, FORMAT_KEY: "onnx", ABSORBED_KEY: json.dumps(absorbed)}, carried)


def _read_as_uint8(graph: Graph, fused: set[str]) -> set[str]:
    """Tensors without negative values that a convolution reads as uint8."""
    found = set()
    for node in graph.find(Conv2d):
        assert isinstance(node.op, Conv2d)
        x = graph.types[node.inputs[0]]
        if range_with_zero(x)[0] == 0 and (node.name in fused or is_unfolded(node.op, x, graph.types[node.name])):
            found.add(node.inputs[0])
    return found


def check_opset(opset: int) -> None:
    """Refuse an operator set version that is not written.

    Raises:
        OptionError: naming the supported range.
    """
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise OptionError("unsupported ONNX opset", where="--opset", got=opset, expected=f"{MIN_OPSET} to {MAX_OPSET}")


def assemble(e: Emitter, metadata: Mapping[str, str], carried: Sequence[str]) -> onnx.ModelProto:
    """The model of everything an emitter collected.

    Args:
        e: the emitter.
        metadata: strings for metadata_props.
        carried: IR tensors that a value of their name carries; they get declared shapes with the batch axis "N".
    """

    def info(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, ELEMENT[e.dtype(name)], ["N", *e.graph.types[name].shape])

    onnx_graph = helper.make_graph(
        e.nodes,
        "qexport",
        [info(name) for name in e.graph.inputs],
        [info(name) for name in e.graph.outputs],
        e.initializers,
        value_info=[info(name) for name in carried if name not in e.graph.outputs],
    )
    imports = [helper.make_opsetid("", e.opset)]
    model = helper.make_model(
        onnx_graph,
        opset_imports=imports,
        ir_version=helper.find_min_ir_version_for(imports),
        producer_name="qexport",
        producer_version=_version(),
    )
    props = {**metadata, TENSORS_KEY: json.dumps([*e.graph.inputs, *carried])}
    helper.set_model_props(model, dict(sorted(props.items())))
    return model


def _version() -> str:
    try:
        return version("qexport")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"

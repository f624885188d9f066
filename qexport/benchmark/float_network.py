"""The float network that other engines run: shapes and operators of an integer network, in float32 ONNX.

Convolutions keep their weights up to one factor per layer, and have a bias where batch norm would leave one; quantizers
are ReLU, as trained networks of that architecture have them; sums are means again; rescaling, which floats do not need,
vanishes. What such a network answers means nothing; what it costs is what the float network of the architecture costs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from qexport.ir import Graph, Node
from qexport.ops import Clip, Concat, Conv2d, Linear, MaxPool, Pad, Reshape, Slice, SumPool, Threshold, Transpose

OPSET, IR_VERSION = 17, 8
"""Old enough for every engine."""

BATCH_AXIS = "N"
BIAS_STD = 0.1


def float_onnx(graph: Graph, *, seed: int = 0) -> onnx.ModelProto:
    """The float network of an integer graph.

    Args:
        graph: integer graph with one or several uint8 inputs.
        seed: of the biases.

    Returns:
        a model with float32 inputs and outputs [N, *shape] of the same names.
    """
    writer = _Writer(graph, seed)
    for node in graph.nodes:
        writer.value[node.name] = _WRITERS[node.op.kind](writer, node)
    for name in graph.outputs:
        writer.emit("Identity", [writer.value[name]], name=f"output_{name}")
    body = helper.make_graph(
        writer.nodes,
        "float",
        [_info(name, graph.types[name].shape) for name in graph.inputs],
        [_info(f"output_{name}", graph.types[name].shape) for name in graph.outputs],
        writer.constants,
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


def _info(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH_AXIS, *shape])


class _Writer:
    """Nodes so far; `value` maps a tensor of the graph to the float tensor that carries it."""

    def __init__(self, graph: Graph, seed: int) -> None:
        self.graph = graph
        self.readers = graph.consumers()
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.value = {name: name for name in graph.inputs}
        self.positive: set[str] = set()
        """Results of ReLU, and of operators that keep their sign: they need no further ReLU."""
        self.rectified: dict[str, str] = {}
        """Tensor -> its ReLU, which several quantizers may share."""

    def emit(self, kind: str, inputs: list[str], *, name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, array: NDArray) -> str:
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def input(self, node: Node) -> str:
        return self.value[node.inputs[0]]

    def keep_sign(self, node: Node, result: str) -> str:
        if all(self.value[tensor] in self.positive for tensor in node.inputs):
            self.positive.add(result)
        return result


def _parameters(w: _Writer, node: Node, weight: NDArray) -> list[str]:
    """Weights of the spread that keeps activations in one order of magnitude (He et al. 2015), and biases."""
    flat = weight.reshape(len(weight), -1).astype(np.float64)
    gain = np.sqrt(2 / flat.shape[1]) / max(float(np.sqrt(np.mean(flat**2))), 1e-30)
    bias = w.random.normal(0, BIAS_STD, len(weight))
    return [
        w.constant(f"{node.name}_weight", (weight * gain).astype(np.float32)),
        w.constant(f"{node.name}_bias", bias.astype(np.float32)),
    ]


def _conv2d(w: _Writer, node: Node) -> str:
    op = node.op
    assert isinstance(op, Conv2d)
    inputs = [w.input(node), *_parameters(w, node, op.weight.array)]
    return w.emit(
        "Conv",
        inputs,
        name=node.name,
        kernel_shape=op.weight.array.shape[2:],
        strides=op.stride,
        dilations=op.dilation,
        group=op.groups,
        pads=_onnx_pads(op.pads),
    )


def _linear(w: _Writer, node: Node) -> str:
    assert isinstance(node.op, Linear)
    inputs = [w.input(node), *_parameters(w, node, node.op.weight.array)]
    return w.emit("Gemm", inputs, name=node.name, transB=1)


def _rectify(w: _Writer, x: str, name: str) -> str:
    """ReLU of a tensor, made once."""
    if x in w.positive:
        return x
    if x not in w.rectified:
        w.rectified[x] = w.emit("Relu", [x], name=name)
        w.positive.add(name)
    return w.rectified[x]


def _relu(w: _Writer, node: Node) -> str:
    return _rectify(w, w.input(node), node.name)


def _clip(w: _Writer, node: Node) -> str:
    """Clips at zero are ReLU; others keep fixed-point numbers in their range."""
    assert isinstance(node.op, Clip)
    return _relu(w, node) if node.op.lo == 0 else w.input(node)


def _same(w: _Writer, node: Node) -> str:
    return w.input(node)


def _add(w: _Writer, node: Node) -> str:
    return w.keep_sign(node, w.emit("Add", [w.value[tensor] for tensor in node.inputs], name=node.name))


def _max_pool(w: _Writer, node: Node) -> str:
    """ReLU comes before the pool, as float networks have it: engines fuse it with the convolution."""
    op, x = node.op, w.input(node)
    assert isinstance(op, MaxPool)
    if all(isinstance(reader.op, Threshold) for reader in w.readers[node.name]):
        x = _rectify(w, x, f"{node.name}_relu")
    result = w.emit(
        "MaxPool",
        [x],
        name=node.name,
        kernel_shape=op.kernel,
        strides=op.stride,
        dilations=op.dilation,
        pads=_onnx_pads(op.pads),
    )
    if x in w.positive:
        w.positive.add(result)
    return result


def _mean_pool(w: _Writer, node: Node) -> str:
    op, x = node.op, w.input(node)
    assert isinstance(op, SumPool)
    if w.graph.types[node.inputs[0]].shape[1:] == op.kernel:
        return w.keep_sign(node, w.emit("GlobalAveragePool", [x], name=node.name))
    result = w.emit(
        "AveragePool",
        [x],
        name=node.name,
        kernel_shape=op.kernel,
        strides=op.stride,
        pads=_onnx_pads(op.pads),
        count_include_pad=1,
    )
    return w.keep_sign(node, result)


def _pad(w: _Writer, node: Node) -> str:
    assert isinstance(node.op, Pad)
    before, after = zip(*node.op.pads, strict=True)
    pads = w.constant(f"{node.name}_pads", np.array([0, *before, 0, *after], np.int64))
    return w.keep_sign(node, w.emit("Pad", [w.input(node), pads], name=node.name))


def _slice(w: _Writer, node: Node) -> str:
    assert isinstance(node.op, Slice)
    shape = w.graph.types[node.inputs[0]].shape
    cut = [(axis, *r) for axis, r in enumerate(node.op.ranges, 1) if r != (0, shape[axis - 1], 1)]
    if not cut:
        return w.input(node)
    axes, starts, stops, steps = (np.array(column, np.int64) for column in zip(*cut, strict=True))
    columns = {"starts": starts, "stops": stops, "axes": axes, "steps": steps}
    constants = [w.constant(f"{node.name}_{name}", array) for name, array in columns.items()]
    return w.keep_sign(node, w.emit("Slice", [w.input(node), *constants], name=node.name))


def _concat(w: _Writer, node: Node) -> str:
    assert isinstance(node.op, Concat)
    inputs = [w.value[tensor] for tensor in node.inputs]
    return w.keep_sign(node, w.emit("Concat", inputs, name=node.name, axis=1 + node.op.axis))


def _reshape(w: _Writer, node: Node) -> str:
    assert isinstance(node.op, Reshape)
    shape = w.constant(f"{node.name}_shape", np.array([0, *node.op.shape], np.int64))
    return w.keep_sign(node, w.emit("Reshape", [w.input(node), shape], name=node.name))


def _transpose(w: _Writer, node: Node) -> str:
    assert isinstance(node.op, Transpose)
    order = [0, *(1 + axis for axis in node.op.axes)]
    return w.keep_sign(node, w.emit("Transpose", [w.input(node)], name=node.name, perm=order))


def _l2_norm(w: _Writer, node: Node) -> str:
    return w.keep_sign(node, w.emit("LpNormalization", [w.input(node)], name=node.name, axis=1, p=2))


def _onnx_pads(pads: tuple[tuple[int, int], tuple[int, int]]) -> list[int]:
    return [pads[0][0], pads[1][0], pads[0][1], pads[1][1]]


_WRITERS: dict[str, Callable[[_Writer, Node], str]] = {
    "add": _add,
    "border_bias": _same,
    "clip": _clip,
    "concat": _concat,
    "conv2d": _conv2d,
    "l2_norm": _l2_norm,
    "linear": _linear,
    "max_pool": _max_pool,
    "pad": _pad,
    "rescale": _same,
    "reshape": _reshape,
    "slice": _slice,
    "sum_pool": _mean_pool,
    "threshold": _relu,
    "transpose": _transpose,
}

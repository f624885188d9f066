"""What each torch operator becomes in the real graph: one handler an operator, one table."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from qexport.capture.builder import Builder, unsupported
from qexport.ops import Add, AvgPool, Clip, Concat, Conv2d, Linear, MaxPool, Pad, PRelu, Reshape, Slice, Step
from qexport.ops.conv2d import Pads
from qexport.stepfunction import StepFunction

Handler = Callable[[Builder, torch.fx.Node], str]
HANDLERS: dict[str, Handler] = {}
"""Operator name ("conv2d.default") -> handler returning the IR tensor."""


def handles(*names: str) -> Callable[[Handler], Handler]:
    def enter(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return enter


def _arguments(node: torch.fx.Node) -> dict[str, Any]:
    """Arguments by their schema names, defaults filled in."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    given = {a.name: v for a, v in zip(schema, node.args, strict=False)} | dict(node.kwargs)
    return {a.name: given.get(a.name, a.default_value if a.has_default_value() else None) for a in schema}


def _pair(value: Any, default: Any = None) -> tuple[int, int]:
    value = default if value in (None, [], ()) else value
    if isinstance(value, int):
        return value, value
    return (int(value[0]), int(value[0])) if len(value) == 1 else (int(value[0]), int(value[1]))


def _input(b: Builder, node: torch.fx.Node, argument: Any) -> str:
    x = b.tensor(argument)
    if x is None:
        raise unsupported(node, "a constant where an activation is expected")
    return x


@handles("conv2d.default", "conv2d.padding")
def conv2d(b: Builder, node: torch.fx.Node) -> str:
    a = _arguments(node)
    if b.tensor(a["weight"]) is not None:
        raise unsupported(node, "a convolution whose weight depends on the input")
    x, weight = _input(b, node, a["input"]), b.weight(node, b.constant(a["weight"]))
    stride, dilation = _pair(a["stride"]), _pair(a["dilation"])
    x, pads = _absorb_padding(b, x, _conv_pads(a["padding"], weight.array.shape[2:], dilation))
    op = Conv2d(weight, stride, pads, dilation, int(a["groups"]))
    return _bias(b, node, b.emit(node, op, x), a["bias"])


def _absorb_padding(b: Builder, x: str, pads: Pads) -> tuple[str, Pads]:
    """Take F.pad in front of a convolution (asymmetric padding) as the convolution's own, exact on any input."""
    producer = next((n for n in b.graph.nodes if n.name == x), None)
    if producer is None or not isinstance(producer.op, Pad) or any(producer.op.pads[0]):
        return x, pads
    (top, bottom), (left, right) = producer.op.pads[1:]
    return producer.inputs[0], ((pads[0][0] + top, pads[0][1] + bottom), (pads[1][0] + left, pads[1][1] + right))


def _conv_pads(padding: Any, kernel: tuple[int, ...], dilation: tuple[int, int]) -> Pads:
    """((top, bottom), (left, right)); 'same' pads the odd pixel behind, as torch does."""
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return (total[0] // 2, total[0] - total[0] // 2), (total[1] // 2, total[1] - total[1] // 2)
    rows, cols = _pair(padding)
    return (rows, rows), (cols, cols)


@handles("linear.default")
def linear(b: Builder, node: torch.fx.Node) -> str:
    a = _arguments(node)
    if b.tensor(a["weight"]) is not None:
        raise unsupported(node, "a linear layer whose weight depends on the input")
    x = _input(b, node, a["input"])
    if len(b.graph.types[x].shape) != 1:
        raise unsupported(node, f"linear on a tensor of shape {b.graph.types[x].shape}", "flatten before it")
    out = b.emit(node, Linear(b.weight(node, b.constant(a["weight"]))), x)
    return _bias(b, node, out, a["bias"])


def _bias(b: Builder, node: torch.fx.Node, out: str, bias: Any) -> str:
    value = b.constant(bias)
    if value is None:
        return out
    values = value.detach().double().numpy()
    return b.affine(node, out, np.ones_like(values), values, ".bias")


@handles("batch_norm.default", "_native_batch_norm_legit_no_training.default")
def batch_norm(b: Builder, node: torch.fx.Node) -> str:
    """gain = weight / sqrt(var + eps), bias = bias - mean * gain, in float64."""
    a = _arguments(node)
    x = _input(b, node, a["input"])
    if a.get("training"):
        raise unsupported(node, "batch norm in training mode", "call model.eval()")
    mean, var = (b.constant(a[k]) for k in ("running_mean", "running_var"))
    if mean is None or var is None:
        raise unsupported(node, "batch norm without running statistics", "train with track_running_stats=True")
    mean, var = mean.double().numpy(), var.double().numpy()
    weight, bias = (b.constant(a[k]) for k in ("weight", "bias"))
    weight = np.ones_like(mean) if weight is None else weight.detach().double().numpy()
    bias = np.zeros_like(mean) if bias is None else bias.detach().double().numpy()
    gain = weight / np.sqrt(var + float(a["eps"]))
    out = b.affine(node, x, gain, bias - mean * gain)
    b.statistics[out] = (bias, np.abs(weight))
    return out


@handles("relu.default")
def relu(b: Builder, node: torch.fx.Node) -> str:
    return b.emit(node, Clip(Fraction(0), None), _input(b, node, node.args[0]))


@handles(
    "relu6.default", "hardtanh.default", "clamp.default", "clamp_min.default", "clamp_max.default", "clip.default"
)  # fmt: skip
def clip(b: Builder, node: torch.fx.Node) -> str:
    a = _arguments(node)
    lo, hi = a.get("min_val", a.get("min")), a.get("max_val", a.get("max"))
    if node.target == torch.ops.aten.relu6.default:
        lo, hi = 0, 6
    exact = [None if v is None else Fraction(float(v)) for v in (lo, hi)]
    return b.emit(node, Clip(*exact), _input(b, node, a.get("self", node.args[0])))


@handles("prelu.default", "leaky_relu.default")
def prelu(b: Builder, node: torch.fx.Node) -> str:
    a = _arguments(node)
    x = _input(b, node, a["self"])
    slope = b.constant(a["weight"]) if "weight" in a else a["negative_slope"]
    if isinstance(slope, torch.Tensor):
        slope = slope.reshape(-1, *(1,) * (len(b.graph.types[x].shape) - 1)) if slope.numel() > 1 else slope
    values = b.per_channel(node, x, slope)
    if values.min() < 0:
        raise unsupported(node, f"PReLU with negative slope {values.min()}: not monotone")
    return b.emit(node, PRelu(tuple(Fraction(float(v)) for v in values)), x)


@handles("step.default")
def step(b: Builder, node: torch.fx.Node) -> str:
    """A frozen quantizer; a value offset becomes an affine behind it."""
    argument, thresholds, values = node.args
    function = StepFunction.from_values(
        b.constant(thresholds).numpy(), b.constant(values).numpy(), str(node.meta.get("nn_module_stack", ""))
    )
    bare = StepFunction(function.thresholds, function.values, function.levels, function.scale)
    out = b.emit(node, Step(bare), _input(b, node, argument))
    channels = b.graph.types[out].channels
    return b.affine(node, out, np.ones(channels), np.full(channels, float(function.offset)), ".offset")


@handles("add.Tensor", "sub.Tensor")
def add(b: Builder, node: torch.fx.Node) -> str:
    a = _arguments(node)
    sign = float(a["alpha"]) * (-1.0 if "sub" in str(node.target) else 1.0)
    left, right = b.tensor(a["self"]), b.tensor(a["other"])
    if left is not None and right is not None:
        channels = b.graph.types[right].channels
        right = b.affine(node, right, np.full(channels, sign), np.zeros(channels), ".operand")
        return b.emit(node, Add(), left, right)
    if left is not None:
        offset = b.per_channel(node, left, b.constant(a["other"]))
        return b.affine(node, left, np.ones_like(offset), sign * offset)
    assert right is not None
    offset = b.per_channel(node, right, b.constant(a["self"]))
    return b.affine(node, right, np.full_like(offset, sign), offset)


@handles("mul.Tensor", "div.Tensor", "neg.default")
def scale(b: Builder, node: torch.fx.Node) -> str:
    a = _arguments(node)
    operands = [a["self"], a.get("other", -1.0)]
    moving = [b.tensor(o) for o in operands]
    if all(moving):
        raise unsupported(node, "the product of two activations")
    divides = "div" in str(node.target)
    if divides and moving[1] is not None:
        raise unsupported(node, "division by an activation")
    x = moving[0] or moving[1]
    assert x is not None
    factor = b.per_channel(node, x, b.constant(operands[1] if moving[0] else operands[0]))
    gain = 1.0 / factor if divides else factor
    return b.affine(node, x, gain, np.zeros_like(gain))


@handles("max_pool2d.default")
def max_pool(b: Builder, node: torch.fx.Node) -> str:
    a = _arguments(node)
    kernel, (rows, cols) = _pair(a["kernel_size"]), _pair(a["padding"], 0)
    if a["ceil_mode"] or _pair(a["dilation"], 1) != (1, 1):
        raise unsupported(node, "max pooling with ceil_mode or dilation")
    op = MaxPool(kernel, _pair(a["stride"], kernel), ((rows, rows), (cols, cols)))
    return b.emit(node, op, _input(b, node, a["self"]))


@handles("avg_pool2d.default")
def avg_pool(b: Builder, node: torch.fx.Node) -> str:
    a = _arguments(node)
    kernel, (rows, cols) = _pair(a["kernel_size"]), _pair(a["padding"], 0)
    padded = rows > 0 or cols > 0
    if a["ceil_mode"] or a["divisor_override"] is not None or (padded and not a["count_include_pad"]):
        raise unsupported(node, "average pooling with ceil_mode, divisor_override or count_include_pad=False")
    op = AvgPool(kernel, _pair(a["stride"], kernel), ((rows, rows), (cols, cols)))
    return b.emit(node, op, _input(b, node, a["self"]))


@handles("adaptive_avg_pool2d.default")
def adaptive_avg_pool(b: Builder, node: torch.fx.Node) -> str:
    x = _input(b, node, node.args[0])
    size, wanted = b.graph.types[x].shape[1:], b.output_shape(node)[1:]
    if any(n % w for n, w in zip(size, wanted, strict=True)):
        raise unsupported(node, f"adaptive pooling of {size} to {wanted} with unequal windows")
    kernel = (size[0] // wanted[0], size[1] // wanted[1])
    return b.emit(node, AvgPool(kernel, kernel), x)


@handles("mean.dim")
def mean(b: Builder, node: torch.fx.Node) -> str:
    a = _arguments(node)
    x = _input(b, node, a["self"])
    shape = b.graph.types[x].shape
    if len(shape) != 3 or sorted(d % 4 for d in a["dim"]) != [2, 3]:
        raise unsupported(node, f"a mean over axes {a['dim']}", "only the mean over height and width is supported")
    out = b.emit(node, AvgPool((shape[1], shape[2]), (1, 1)), x)
    return out if a["keepdim"] else b.emit(node, Reshape((shape[0], 1, 1), (shape[0],)), out, suffix=".flat")


@handles("slice.Tensor")
def slice_(b: Builder, node: torch.fx.Node) -> str:
    a = _arguments(node)
    x = _input(b, node, a["self"])
    shape = b.graph.types[x].shape
    axis = int(a["dim"]) % (len(shape) + 1)
    start, stop = a["start"] or 0, a["end"]
    if axis == 0:
        if start == 0 and (stop is None or stop == 2**63 - 1) and a["step"] == 1:
            return x
        raise unsupported(node, "a slice of the batch axis")
    extent = shape[axis - 1]
    taken = range(extent)[slice(start, stop, a["step"])]
    if len(taken) == extent and a["step"] == 1:
        return x
    ranges = [(0, n, 1) for n in shape]
    ranges[axis - 1] = (taken.start, taken.stop, taken.step)
    return b.emit(node, Slice(tuple(ranges)), x)


@handles("pad.default", "constant_pad_nd.default")
def pad(b: Builder, node: torch.fx.Node) -> str:
    a = _arguments(node)
    x = _input(b, node, a["self"])
    if a.get("mode", "constant") != "constant" or float(a["value"] or 0) != 0:
        raise unsupported(
            node, f"padding of mode {a.get('mode')!r} with value {a['value']}", "only zero padding is exact"
        )
    amounts = [int(v) for v in a["pad"]]
    shape = b.graph.types[x].shape
    pairs = list(zip(amounts[0::2], amounts[1::2], strict=True))[::-1]  # torch lists the last axis first
    if len(pairs) > len(shape) or min(amounts) < 0:
        raise unsupported(node, f"padding by {amounts}")
    return b.emit(node, Pad(tuple([(0, 0)] * (len(shape) - len(pairs)) + pairs)), x)


@handles("cat.default")
def concat(b: Builder, node: torch.fx.Node) -> str:
    a = _arguments(node)
    inputs = [_input(b, node, t) for t in a["tensors"]]
    rank = len(b.graph.types[inputs[0]].shape) + 1
    if int(a["dim"]) % rank != 1:
        raise unsupported(node, f"concatenation along axis {a['dim']}", "only along the channels")
    return b.emit(node, Concat(), *inputs)


@handles("view.default", "reshape.default", "flatten.using_ints", "squeeze.dims", "squeeze.dim", "unsqueeze.default")
def reshape(b: Builder, node: torch.fx.Node) -> str:
    x = _input(b, node, node.args[0])
    source, shape = b.graph.types[x].shape, b.output_shape(node)
    if source == shape:
        return x
    if not shape or math.prod(source) != math.prod(shape) or shape[0] % source[0]:
        raise unsupported(
            node, f"a reshape of {source} to {shape} per sample", "flatten everything after the batch axis"
        )
    return b.emit(node, Reshape(source, shape), x)


@handles(
    "dropout.default", "alias.default", "detach.default", "clone.default", "contiguous.default",
    "feature_dropout.default", "to.dtype", "_to_copy.default", "lift_fresh_copy.default",
)  # fmt: skip
def identity(b: Builder, node: torch.fx.Node) -> str:
    return _input(b, node, node.args[0])

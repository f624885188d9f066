"""Layers and elementwise functions: what their torch operators become in the real graph."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import torch

from qexport.capture.builder import Builder, unsupported
from qexport.capture.handlers import activation, arguments, handles, pair
from qexport.capture.norms import bounded, normalized, raised
from qexport.ops import Add, Clip, Conv2d, Linear, Pad, PRelu, Step
from qexport.ops.conv2d import Pads
from qexport.stepfunction import StepFunction


@handles("conv2d.default", "conv2d.padding")
def conv2d(b: Builder, node: torch.fx.Node) -> str:
    a = arguments(node)
    if b.tensor(a["weight"]) is not None:
        raise unsupported(node, "a convolution whose weight depends on the input")
    x, weight = activation(b, node, a["input"]), b.weight(node, b.constant(a["weight"]))
    stride, dilation = pair(a["stride"]), pair(a["dilation"])
    x, pads = _absorb_padding(b, x, _conv_pads(a["padding"], weight.array.shape[2:], dilation))
    op = Conv2d(weight, stride, pads, dilation, int(a["groups"]))
    return _bias(b, node, b.emit(node, op, x), a["bias"])


def _absorb_padding(b: Builder, x: str, pads: Pads) -> tuple[str, Pads]:
    """Take F.pad in front of a convolution (asymmetric padding) as the convolution's own, exact on any input."""
    producer = b.producer(x)
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
    rows, cols = pair(padding)
    return (rows, rows), (cols, cols)


@handles("linear.default")
def linear(b: Builder, node: torch.fx.Node) -> str:
    a = arguments(node)
    if b.tensor(a["weight"]) is not None:
        raise unsupported(node, "a linear layer whose weight depends on the input")
    x = activation(b, node, a["input"])
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
    a = arguments(node)
    x = activation(b, node, a["input"])
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
    return b.emit(node, Clip(Fraction(0), None), activation(b, node, node.args[0]))


@handles(
    "relu6.default", "hardtanh.default", "clamp.default", "clamp_min.default", "clamp_max.default", "clip.default"
)  # fmt: skip
def clip(b: Builder, node: torch.fx.Node) -> str | None:
    a = arguments(node)
    lo, hi = a.get("min_val", a.get("min")), a.get("max_val", a.get("max"))
    norm = b.norm(node.args[0])
    if norm is not None:
        bounded(b, node, norm, lo, hi)
        return None
    if node.target == torch.ops.aten.relu6.default:
        lo, hi = 0, 6
    exact = [None if v is None else Fraction(float(v)) for v in (lo, hi)]
    return b.emit(node, Clip(*exact), activation(b, node, a.get("self", node.args[0])))


@handles("prelu.default", "leaky_relu.default")
def prelu(b: Builder, node: torch.fx.Node) -> str:
    a = arguments(node)
    x = activation(b, node, a["self"])
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
    out = b.emit(node, Step(bare), activation(b, node, argument))
    channels = b.graph.types[out].channels
    return b.affine(node, out, np.ones(channels), np.full(channels, float(function.offset)), ".offset")


@handles("add.Tensor", "sub.Tensor")
def add(b: Builder, node: torch.fx.Node) -> str | None:
    a = arguments(node)
    norm = b.norm(a["self"])
    if norm is not None:
        raised(b, node, norm, a["other"] if "add" in str(node.target) else None)
        return None
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
    a = arguments(node)
    operands = [a["self"], a.get("other", -1.0)]
    divides = "div" in str(node.target)
    norm = b.norm(operands[1]) if divides else None
    if norm is not None:
        return normalized(b, node, activation(b, node, operands[0]), norm)
    moving = [b.tensor(o) for o in operands]
    if all(moving):
        raise unsupported(node, "the product of two activations")
    if divides and moving[1] is not None:
        raise unsupported(node, "division by an activation")
    x = moving[0] or moving[1]
    assert x is not None
    factor = b.per_channel(node, x, b.constant(operands[1] if moving[0] else operands[0]))
    gain = 1.0 / factor if divides else factor
    return b.affine(node, x, gain, np.zeros_like(gain))


@handles(
    "dropout.default", "alias.default", "detach.default", "clone.default", "contiguous.default",
    "feature_dropout.default", "to.dtype", "_to_copy.default", "lift_fresh_copy.default",
)  # fmt: skip
def identity(b: Builder, node: torch.fx.Node) -> str:
    return activation(b, node, node.args[0])

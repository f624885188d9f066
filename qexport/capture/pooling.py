"""Pooling and means: what their torch operators become in the real graph."""

from __future__ import annotations

from typing import Any

import torch

from qexport.capture.builder import Builder, unsupported
from qexport.capture.handlers import activation, arguments, handles, pair
from qexport.capture.movement import reshaped
from qexport.ops import AvgPool, MaxPool
from qexport.ops.conv2d import Pads
from qexport.ops.pool import PerPosition


@handles("max_pool2d.default")
def max_pool(b: Builder, node: torch.fx.Node) -> str:
    a = arguments(node)
    x = activation(b, node, a["self"])
    kernel, dilation = pair(a["kernel_size"]), pair(a["dilation"], 1)
    stride = pair(a["stride"], kernel)
    pads = _pads(b, node, x, kernel, stride, pair(a["padding"], 0), dilation)
    return b.emit(node, MaxPool(kernel, stride, pads, dilation), x)


@handles("avg_pool2d.default")
def avg_pool(b: Builder, node: torch.fx.Node) -> str:
    a = arguments(node)
    x = activation(b, node, a["self"])
    kernel, padding = pair(a["kernel_size"]), pair(a["padding"], 0)
    if a["divisor_override"] is not None:
        raise unsupported(node, "average pooling with divisor_override")
    stride = pair(a["stride"], kernel)
    pads = _pads(b, node, x, kernel, stride, padding, (1, 1))
    counted = padding if a["count_include_pad"] else (0, 0)
    return b.emit(node, AvgPool(kernel, stride, pads, _divisors(b, x, kernel, stride, pads, counted)), x)


def _pads(
    b: Builder,
    node: torch.fx.Node,
    x: str,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Pads:
    """Padding on both sides; at the end so much more that the windows torch counts (ceil_mode) all fit."""
    found = []
    for axis, (size, extent) in enumerate(zip(b.graph.types[x].shape[1:], b.output_shape(node)[1:], strict=True)):
        reach = (extent - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1
        found.append((padding[axis], max(padding[axis], reach - size - padding[axis])))
    return found[0], found[1]


def _divisors(
    b: Builder, x: str, kernel: tuple[int, int], stride: tuple[int, int], pads: Pads, counted: tuple[int, int]
) -> PerPosition | None:
    """Pixels each window counts: those inside the input and `counted` rows and columns of padding around it.

    None where every window counts all its pixels.
    """
    shape = b.graph.types[x].shape
    inside = []
    for axis, extent in enumerate(AvgPool(kernel, stride, pads).output_shape(b.graph.types[x])[1:]):
        starts = [i * stride[axis] - pads[axis][0] for i in range(extent)]
        first, last = -counted[axis], shape[1 + axis] + counted[axis]
        inside.append(tuple(min(s + kernel[axis], last) - max(s, first) for s in starts))
    return None if set(inside[0]) == {kernel[0]} and set(inside[1]) == {kernel[1]} else (inside[0], inside[1])


@handles("adaptive_avg_pool2d.default")
def adaptive_avg_pool(b: Builder, node: torch.fx.Node) -> str:
    x = activation(b, node, node.args[0])
    kernel = _equal_windows(b, node, x)
    return b.emit(node, AvgPool(kernel, kernel), x)


@handles("adaptive_max_pool2d.default")
def adaptive_max_pool(b: Builder, node: torch.fx.Node) -> list[str]:
    """The second result is where the maxima were; nothing can read it."""
    x = activation(b, node, node.args[0])
    kernel = _equal_windows(b, node, x)
    return [b.emit(node, MaxPool(kernel, kernel), x)]


def _equal_windows(b: Builder, node: torch.fx.Node, x: str) -> tuple[int, int]:
    """Window of an adaptive pooling whose windows are all alike.

    Raises:
        UnsupportedOperatorError: the input is no multiple of the output.
    """
    size = b.graph.types[x].shape[1:]
    value = node.meta["val"]
    rows, cols = (value[0] if isinstance(value, tuple | list) else value).shape[2:]
    if size[0] % rows or size[1] % cols:
        raise unsupported(
            node,
            f"adaptive pooling of {size} to {(int(rows), int(cols))} with unequal windows",
            "choose an --input-shape whose features are a multiple of the pooled size",
        )
    return size[0] // int(rows), size[1] // int(cols)


@handles("mean.dim")
def mean(b: Builder, node: torch.fx.Node) -> str:
    a = arguments(node)
    x, kernel = _over_pixels(b, node, a, "a mean")
    return _without_axes(b, node, b.emit(node, AvgPool(kernel, kernel), x))


@handles("amax.default")
def amax(b: Builder, node: torch.fx.Node) -> str:
    a = arguments(node)
    x, kernel = _over_pixels(b, node, a, "a maximum")
    return _without_axes(b, node, b.emit(node, MaxPool(kernel, kernel), x))


def _over_pixels(b: Builder, node: torch.fx.Node, a: dict[str, Any], what: str) -> tuple[str, tuple[int, int]]:
    """Input and window of a reduction over rows, columns or both."""
    x = activation(b, node, a["self"])
    shape = b.graph.types[x].shape
    axes = {d % (len(shape) + 1) for d in a["dim"]}
    if len(shape) != 3 or not axes or not axes <= {2, 3}:
        raise unsupported(node, f"{what} over axes {a['dim']}", "only height and width are supported")
    return x, (shape[1] if 2 in axes else 1, shape[2] if 3 in axes else 1)


def _without_axes(b: Builder, node: torch.fx.Node, out: str) -> str:
    """The result without the reduced axes, where torch drops them."""
    return reshaped(b, node, out, b.output_shape(node), ".flat")

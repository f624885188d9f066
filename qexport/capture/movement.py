"""Slices, padding, concatenation, reshapes and transposes: what their torch operators become in the real graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch

from qexport.capture.builder import Builder, unsupported
from qexport.capture.handlers import activation, arguments, handles
from qexport.ops import Concat, Pad, Reshape, Slice, Transpose


def _sample_axis(b: Builder, node: torch.fx.Node, x: str, dim: int, what: str) -> int:
    """Per-sample axis of a torch axis.

    Raises:
        UnsupportedOperatorError: it is the batch axis.
    """
    axis = int(dim) % (len(b.graph.types[x].shape) + 1)
    if axis == 0:
        raise unsupported(node, f"{what} of the batch axis")
    return axis - 1


def _cut(b: Builder, node: torch.fx.Node, x: str, axis: int, taken: range, suffix: str = "") -> str:
    """The slice of one per-sample axis; the tensor itself where it is taken whole."""
    shape = b.graph.types[x].shape
    if taken == range(shape[axis]):
        return x
    ranges = [(0, n, 1) for n in shape]
    ranges[axis] = (taken.start, taken.stop, taken.step)
    return b.emit(node, Slice(tuple(ranges)), x, suffix=suffix)


@handles("slice.Tensor")
def slice_(b: Builder, node: torch.fx.Node) -> str:
    a = arguments(node)
    x = activation(b, node, a["self"])
    start, stop = a["start"] or 0, a["end"]
    if a["dim"] == 0 and (start, a["step"]) == (0, 1) and stop in (None, 2**63 - 1):
        return x
    axis = _sample_axis(b, node, x, a["dim"], "a slice")
    return _cut(b, node, x, axis, range(b.graph.types[x].shape[axis])[slice(start, stop, a["step"])])


@handles("narrow.default")
def narrow(b: Builder, node: torch.fx.Node) -> str:
    a = arguments(node)
    x = activation(b, node, a["self"])
    axis = _sample_axis(b, node, x, a["dim"], "a slice")
    return _cut(b, node, x, axis, range(b.graph.types[x].shape[axis])[a["start"] :][: a["length"]])


@handles("select.int")
def select(b: Builder, node: torch.fx.Node) -> str:
    a = arguments(node)
    x = activation(b, node, a["self"])
    axis = _sample_axis(b, node, x, a["dim"], "an element")
    return _element(b, node, x, axis, int(a["index"]) % b.graph.types[x].shape[axis])


@handles("unbind.int")
def unbind(b: Builder, node: torch.fx.Node) -> list[str]:
    a = arguments(node)
    x = activation(b, node, a["self"])
    axis = _sample_axis(b, node, x, a["dim"], "the elements")
    return [_element(b, node, x, axis, i) for i in range(b.graph.types[x].shape[axis])]


def _element(b: Builder, node: torch.fx.Node, x: str, axis: int, index: int) -> str:
    one = _cut(b, node, x, axis, range(index, index + 1), f".{index}")
    source = b.graph.types[one].shape
    shape = (*source[:axis], *source[axis + 1 :])
    if not shape:
        raise unsupported(node, "an output without an axis beside the batch", "keep the axis: x[:, i : i + 1]")
    return reshaped(b, node, one, shape, f".{index}.flat")


@handles("split.Tensor", "split_with_sizes.default", "chunk.default", "tensor_split.sections")
def split(b: Builder, node: torch.fx.Node) -> list[str]:
    """Parts side by side along one axis, as large as the tracer says."""
    a = arguments(node)
    x = activation(b, node, a["self"])
    axis = _sample_axis(b, node, x, a["dim"], "a split")
    ends = [0]
    for part in node.meta["val"]:
        ends.append(ends[-1] + int(part.shape[1 + axis]))
    return [_cut(b, node, x, axis, range(*span), f".{i}") for i, span in enumerate(pairwise(ends))]


@handles("pad.default", "constant_pad_nd.default")
def pad(b: Builder, node: torch.fx.Node) -> str:
    a = arguments(node)
    x = activation(b, node, a["self"])
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
    a = arguments(node)
    inputs = [activation(b, node, t) for t in a["tensors"]]
    return b.emit(node, Concat(_sample_axis(b, node, inputs[0], a["dim"], "a concatenation")), *inputs)


@handles("permute.default")
def permute(b: Builder, node: torch.fx.Node) -> str:
    a = arguments(node)
    return _transposed(b, node, activation(b, node, a["self"]), a["dims"])


@handles("transpose.int", "movedim.int", "mT.default")
def transpose(b: Builder, node: torch.fx.Node) -> str:
    a = arguments(node)
    x = activation(b, node, a["self"])
    axes = list(range(len(b.graph.types[x].shape) + 1))
    if "movedim" in str(node.target):
        moved = axes.pop(int(a["source"]))
        axes.insert(int(a["destination"]) % (len(axes) + 1), moved)
    else:
        first, second = int(a.get("dim0", -2)), int(a.get("dim1", -1))
        axes[first], axes[second] = axes[second], axes[first]
    return _transposed(b, node, x, axes)


def _transposed(b: Builder, node: torch.fx.Node, x: str, dims: Sequence[int]) -> str:
    source = b.graph.types[x].shape
    axes = [int(d) % (len(source) + 1) for d in dims]
    if axes[0] != 0:
        raise unsupported(node, f"a permutation {axes} of the batch axis")
    if axes == sorted(axes):
        return x
    return b.emit(node, Transpose(source, tuple(axis - 1 for axis in axes[1:])), x)


@handles(
    "view.default", "reshape.default", "flatten.using_ints", "unflatten.int", "squeeze.default", "squeeze.dims",
    "squeeze.dim", "unsqueeze.default", "_unsafe_view.default",
)  # fmt: skip
def reshape(b: Builder, node: torch.fx.Node) -> str:
    x = activation(b, node, node.args[0])
    source, shape = b.graph.types[x].shape, b.output_shape(node)
    if not shape or math.prod(source) != math.prod(shape):
        raise unsupported(
            node, f"a reshape of {source} to {shape} per sample", "keep the batch as the first axis, and another behind"
        )
    return reshaped(b, node, x, shape)


def reshaped(b: Builder, node: torch.fx.Node, x: str, shape: tuple[int, ...], suffix: str = "") -> str:
    """The elements of a tensor in another shape; of reshapes in a row one is left, or none."""
    while (producer := b.producer(x)) is not None and isinstance(producer.op, Reshape):
        (x,) = producer.inputs
    source = b.graph.types[x].shape
    return x if source == shape else b.emit(node, Reshape(source, shape), x, suffix=suffix)


@handles("expand_as.default", "expand.default")
def expand(b: Builder, node: torch.fx.Node) -> str | None:
    """Constants and norms broadcast by themselves where they are used; an activation must have the size already."""
    source = node.args[0]
    if not isinstance(source, torch.fx.Node):
        raise unsupported(node, "an expanded number")
    if source.name in b.constants:
        b.constants[node.name] = b.constants[source.name]
        return None
    norm = b.norm(source)
    if norm is not None:
        b.norms[node.name] = norm
        return None
    x = activation(b, node, source)
    if b.graph.types[x].shape != b.output_shape(node):
        raise unsupported(node, f"an activation of shape {b.graph.types[x].shape} repeated to {b.output_shape(node)}")
    return x

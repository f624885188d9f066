"""The float network in torch: the operators of float_network.py, one module call each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor
from torch.nn import functional

Step = Callable[[dict[str, Tensor]], None]


class TorchNetwork:
    """A float ONNX file of this package as torch calls.

    Args:
        path: the file.
        threads: of torch, in this process.
    """

    def __init__(self, path: str, threads: int) -> None:
        torch.set_num_threads(threads)
        graph = onnx.load(path).graph
        self.constants = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in graph.initializer}
        self.outputs = [output.name for output in graph.output]
        for name, value in self.constants.items():
            if value.ndim == 4:
                self.constants[name] = value.contiguous(memory_format=torch.channels_last)
        self.steps = [self._step(node) for node in graph.node]

    def on(self, images: dict[str, NDArray]) -> Callable[[], list[NDArray]]:
        """The network on these images, float32 [N, *shape] by input."""
        feeds = {}
        for name, array in images.items():
            value = torch.from_numpy(array)
            feeds[name] = value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value

        def run() -> list[NDArray]:
            with torch.inference_mode():
                values = dict(feeds)
                for step in self.steps:
                    step(values)
                return [values[name].numpy() for name in self.outputs]

        return run

    def _step(self, node: onnx.NodeProto) -> Step:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        constants = [self.constants[name] for name in node.input if name in self.constants]
        reads = [name for name in node.input if name not in self.constants]
        call, result = _CALLS[node.op_type](attributes, constants), node.output[0]

        def step(values: dict[str, Tensor]) -> None:
            values[result] = call(*(values[name] for name in reads))

        return step


Attributes = dict[str, Any]
Call = Callable[..., Tensor]


def _conv(a: Attributes, constants: list[Tensor]) -> Call:
    weight, bias = constants
    pad, inside = _split_pads(a["pads"])
    settings = {"stride": a["strides"], "dilation": a["dilations"], "groups": a["group"], "padding": inside}
    return lambda x: functional.conv2d(pad(x), weight, bias, **settings)


def _max_pool(a: Attributes, constants: list[Tensor]) -> Call:
    pad, inside = _split_pads(a["pads"], float("-inf"))
    settings = {"stride": a["strides"], "dilation": a["dilations"], "padding": inside}
    return lambda x: functional.max_pool2d(pad(x), a["kernel_shape"], **settings)


def _mean_pool(a: Attributes, constants: list[Tensor]) -> Call:
    pad, inside = _split_pads(a["pads"])
    return lambda x: functional.avg_pool2d(pad(x), a["kernel_shape"], stride=a["strides"], padding=inside)


def _split_pads(pads: list[int], value: float = 0.0) -> tuple[Call, tuple[int, int]]:
    """Equal padding is left to the operator; any other is made before it."""
    top, left, bottom, right = pads
    if (top, left) == (bottom, right):
        return (lambda x: x), (top, left)
    return (lambda x: functional.pad(x, (left, right, top, bottom), value=value)), (0, 0)


def _pad(a: Attributes, constants: list[Tensor]) -> Call:
    before_after = constants[0].reshape(2, -1).tolist()
    sides = [side for before, after in reversed(list(zip(*before_after, strict=True))) for side in (before, after)]
    return lambda x: functional.pad(x, sides)


def _slice(a: Attributes, constants: list[Tensor]) -> Call:
    cuts = {axis: slice(b, e, s) for b, e, axis, s in zip(*(c.tolist() for c in constants), strict=True)}
    index = tuple(cuts.get(axis, slice(None)) for axis in range(max(cuts) + 1))
    return lambda x: x[index]


def _reshape(a: Attributes, constants: list[Tensor]) -> Call:
    shape = constants[0].tolist()[1:]
    return lambda x: x.reshape(len(x), *shape)


_CALLS: dict[str, Callable[[Attributes, list[Tensor]], Call]] = {
    "Add": lambda a, c: torch.add,
    "AveragePool": _mean_pool,
    "Concat": lambda a, c: lambda *x: torch.cat(x, a["axis"]),
    "Conv": _conv,
    "Gemm": lambda a, c: lambda x: functional.linear(x, *c),
    "GlobalAveragePool": lambda a, c: lambda x: x.mean((2, 3), keepdim=True),
    "Identity": lambda a, c: lambda x: x,
    "LpNormalization": lambda a, c: lambda x: functional.normalize(x, dim=a["axis"]),
    "MaxPool": _max_pool,
    "Pad": _pad,
    "Relu": lambda a, c: torch.relu,
    "Reshape": _reshape,
    "Slice": _slice,
    "Transpose": lambda a, c: lambda x: x.permute(a["perm"]),
}

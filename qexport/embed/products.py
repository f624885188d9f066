"""Calls of convolutions and linear layers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qexport.embed.layout import Tensor
from qexport.embed.source import Source
from qexport.embed.weights import (
    PackedForm,
    PlaneForm,
    pack_codes,
    pack_planes,
    packed_form,
    padded_length,
    plane_form,
    rows_of,
)
from qexport.ops import Conv2d, Linear, MaxPool, SumPool

INPUT_BYTES = {"u8": 1, "i16": 2, "i32": 4}
DSP_PAIRS = {("u8", "s8"), ("i16", "s16")}
"""Elements of input and weights that the kernel multiplies two at a time where the processor can."""

SCRATCH = 4096
"""Bytes that the windows of a tile should not exceed."""


def window(source: Source, name: str, op: Conv2d | Linear | MaxPool | SumPool, x: Tensor, y: Tensor) -> str:
    """The geometry of a window; where codes are planes, a channel stands for a byte of a plane."""
    source.kernel("window")
    channels = x.pixel_bytes if x.storage == "planes" else x.channels
    if isinstance(op, Linear):
        taps = (1, 1, 1, 1, 1, 1, 0, 0)
    else:
        size = op.weight.array.shape[2:] if isinstance(op, Conv2d) else op.kernel
        dilation = (1, 1) if isinstance(op, SumPool) else op.dilation
        taps = (*size, *op.stride, *dilation, op.pads[0][0], op.pads[1][0])
    return source.struct(f"{name}_window", "model_window", (x.height, x.width, channels, y.width, *taps), 12)


class Product:
    """A convolution or linear layer: constants, kernel and scratch memory.

    Attributes:
        x, y: its tensors.
        tile_limit: largest number of pixels its scratch memory should hold.
    """

    def __init__(self, op: Conv2d | Linear, x: Tensor, y: Tensor) -> None:
        self.op, self.x, self.y = op, x, y
        self.rows = rows_of(op)
        self.groups = op.groups if isinstance(op, Conv2d) else 1
        self.depthwise = self.groups == x.channels == y.channels and x.storage != "planes"
        self.form = None if self.depthwise else self._choose()
        self._column = padded_length(self.rows.shape[1]) * INPUT_BYTES.get(x.storage, 0)
        free = self.depthwise or isinstance(self.form, PlaneForm)
        self.tile_limit = 1 << 30 if free else max(1, SCRATCH // self._column)

    def _choose(self) -> PlaneForm | PackedForm | None:
        if self.x.storage == "planes":
            assert isinstance(self.op, Conv2d)
            return plane_form(self.op, self.x.planes)
        packed = packed_form(self.rows)
        plain = self.rows.size * _narrowest(self.rows)[0].itemsize
        return packed if packed and 4 * packed.words * len(self.rows) + len(packed.levels) < plain else None

    def scratch(self, pixels: int) -> int:
        """Bytes for a tile of `pixels`."""
        if self.depthwise:
            return 0
        if isinstance(self.form, PlaneForm):
            return self.x.planes * 4 * self.form.words
        row = padded_length(self.rows.shape[1]) if isinstance(self.form, PackedForm) else 0
        return pixels * self._column + row

    def call(self, source: Source, name: str, scratch: str, to: str) -> str:
        """The statement that computes a tile."""
        geometry = window(source, name, self.op, self.x, self.y)
        if self.depthwise:
            return self._depthwise(source, name, geometry, to)
        source.kernel("gather")
        if isinstance(self.form, PlaneForm):
            return self._planes(source, name, geometry, scratch, to, self.form)
        outputs, (taps, length) = (
            self.y.channels // self.groups,
            (self.rows.shape[1], padded_length(self.rows.shape[1])),
        )
        source.kernel("conv_shape")
        packed = self.form
        bits, words = (packed.bits, packed.words) if packed else (0, 0)
        inputs = self.x.channels // self.groups
        shape = (self.groups, inputs, outputs, taps, length, bits, words, -self.x.base)
        shape_name = source.struct(f"{name}_shape", "model_conv", shape, 8)
        if packed:
            weight, element = "packed", "s8"
            source.kernel("conv_packed")
            levels = source.array(f"{name}_levels", np.array(packed.levels, np.int8))
            weights = f"{source.array(f'{name}_weights', pack_codes(self.rows, packed))}, {levels}"
        else:
            kind, width = _narrowest(self.rows)
            padded = np.pad(self.rows, ((0, 0), (0, length - taps))).astype(kind)
            weight = element = width
            weights = source.array(f"{name}_weights", padded)
        if (self.x.storage, element) in DSP_PAIRS:
            source.kernel("dsp")
        suffix = source.kernel("conv", input=self.x.storage, weight=weight)
        bias = "NULL"
        if self.x.base:
            bias = source.array(f"{name}_bias", _wrap(self.x.base * self.rows.sum(1)))
        constants = f"{geometry}, {shape_name}, arena + {self.x.offset}, {weights}, {bias}"
        return f"conv{suffix}({constants}, p, n, {scratch}, {to});"

    def _depthwise(self, source: Source, name: str, geometry: str, to: str) -> str:
        kind, width = _narrowest(self.rows)
        weights = source.array(f"{name}_weights", np.ascontiguousarray(self.rows.T).astype(kind))
        suffix = source.kernel("depthwise", input=self.x.storage, weight=width)
        return f"depthwise{suffix}({geometry}, arena + {self.x.offset}, {self.x.base}, {weights}, p, n, {to});"

    def _planes(self, source: Source, name: str, geometry: str, scratch: str, to: str, form: PlaneForm) -> str:
        source.kernel("conv_planes")
        factors = [_wrap(np.array(form.step << j)).item() if j < form.planes else 0 for j in range(4)]
        shape = (
            self.groups, self.x.pixel_bytes // self.groups, self.y.channels // self.groups, form.words,
            self.x.planes, form.planes, "{" + ", ".join(map(str, factors)) + "}", form.offset,
        )  # fmt: skip
        shape_name = source.struct(f"{name}_shape", "model_planes", shape, 11)
        weights = source.array(f"{name}_weights", pack_planes(self.rows, form))
        plane = self.x.pixels * self.x.pixel_bytes
        constants = f"{geometry}, {shape_name}, arena + {self.x.offset}, {plane}u, {weights}"
        return f"conv_planes({constants}, p, n, {scratch}, {to});"


def _narrowest(rows: NDArray[np.int64]) -> tuple[np.dtype, str]:
    """The narrowest type that holds all weights, and its name in kernels."""
    for kind in (np.int8, np.int16):
        if np.iinfo(kind).min <= rows.min() and rows.max() <= np.iinfo(kind).max:
            return np.dtype(kind), f"s{8 * np.dtype(kind).itemsize}"
    return np.dtype(np.int32), "s32"


def _wrap(values: NDArray[np.int64]) -> NDArray[np.int32]:
    """Modulo 2^32, as the program adds."""
    return (values & 0xFFFFFFFF).astype(np.uint32).view(np.int32)

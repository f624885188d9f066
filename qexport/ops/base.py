"""What every op declares: attributes (its dataclass fields), a type rule, numpy semantics, a channel map."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from fractions import Fraction
from typing import ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from qexport.errors import AccumulatorError, GraphError
from qexport.ir.types import INT32_MAX, INT32_MIN, TensorType

REGISTRY: dict[str, type[Op]] = {}
"""Every op by its kind; the tables that drive backends and tests are checked against it."""

OpClass = TypeVar("OpClass", bound="type[Op]")


class Op:
    """Base of all ops. Subclasses are frozen dataclasses registered with @register.

    `domain` says where an op may stand: "real" (captured network), "integer" (lowered network) or "any".
    """

    kind: ClassVar[str]
    domain: ClassVar[str] = "any"

    def infer(self, *inputs: TensorType) -> TensorType:
        """Output type, with per-channel bounds, from the input types.

        Raises:
            GraphError: shapes or number types do not fit.
            AccumulatorError: an integer result could leave its type.
        """
        raise NotImplementedError

    def evaluate(self, *inputs: NDArray) -> NDArray:
        """Numpy semantics on batched arrays [N, *shape]: float64 for real tensors, int64 for integer ones."""
        raise NotImplementedError

    def map_channels(self, *channels: NDArray) -> NDArray:
        """Carry a per-channel quantity (a scale, a unit) from the inputs to the output channels.

        Defined for ops that move values; the default is for one input whose channel axis is kept.

        Raises:
            GraphError: an output channel joins input channels (`mixes_channels`) that differ in the quantity.
        """
        (only,) = channels
        return only

    @property
    def mixes_channels(self) -> bool:
        """Whether an output channel of an op that moves values holds elements of several input channels."""
        return False

    def __str__(self) -> str:
        parts = []
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            text = f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else str(value)
            parts.append(f"{field.name}={text}")
        return f"{self.kind}<{', '.join(parts)}>" if parts else self.kind


def register(cls: OpClass) -> OpClass:
    """Class decorator: enter an op into the registry under its kind."""
    if cls.kind in REGISTRY:
        raise GraphError("two ops share a kind", where=cls.kind)
    REGISTRY[cls.kind] = cls
    return cls


def rounded(values: Iterable[Fraction]) -> NDArray[np.float64]:
    """Exact rationals as float64 [n], read-only: for caches, since a Fraction's division costs microseconds."""
    array = np.array([float(v) for v in values], np.float64)
    array.flags.writeable = False
    return array


def require_int32(kind: str, lo: NDArray, hi: NDArray) -> None:
    """Refuse a result that could leave int32 (docs/arithmetic.md, eq. 3).

    Raises:
        AccumulatorError: with the worst channel and its bound.
    """
    worst = int(np.argmax(np.maximum(hi, -lo)))
    if lo.min() < INT32_MIN or hi.max() > INT32_MAX:
        raise AccumulatorError(
            f"{kind} could overflow its 32-bit accumulator",
            where=f"channel {worst}",
            got=f"proven range [{int(lo[worst])}, {int(hi[worst])}]",
            expected=f"[{INT32_MIN}, {INT32_MAX}]",
            remedy="use fewer --edge-bits or --act-bits",
        )


def sliding_output(size: int, kernel: int, stride: int, pads: tuple[int, int], dilation: int) -> int:
    """Output extent of a sliding window; raises GraphError where the window does not fit."""
    span = dilation * (kernel - 1) + 1
    extent = (size + pads[0] + pads[1] - span) // stride + 1
    if extent < 1:
        raise GraphError("a window is larger than its padded input", got=f"window {span}, input {size}, padding {pads}")
    return extent


def pad_spatial(x: NDArray, pads: tuple[tuple[int, int], tuple[int, int]], value: float | int = 0) -> NDArray:
    """Pad the last two axes of [N, C, H, W]."""
    if not any(pads[0]) and not any(pads[1]):
        return x
    return np.pad(x, ((0, 0), (0, 0), *pads), constant_values=value)


def windows(
    x: NDArray, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int] = (1, 1)
) -> NDArray:
    """View of all windows: [N, C, H, W] -> [N, C, H_out, W_out, kh, kw]; no copy."""
    span = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    view = np.lib.stride_tricks.sliding_window_view(x, span, axis=(2, 3))
    return view[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]

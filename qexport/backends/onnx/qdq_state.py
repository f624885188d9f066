"""What the QDQ backend knows while it walks the real graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from math import ceil

import numpy as np
from numpy.typing import NDArray

from qexport.backends.onnx.emitter import FLOAT, UINT8, Emitter
from qexport.ir import Graph, Node
from qexport.stepfunction import StepFunction

BYTE_MAX = 255


@dataclass(frozen=True)
class Coded:
    """A real tensor held as bytes: value = scale * (byte - zero_point).

    Attributes:
        value: name of the uint8 value.
        scale: exact positive unit.
        zero_point: 0..255.
        top: largest byte that occurs.
        bars: real values that readers tell apart, ascending, and the byte at which each counts as reached; where it is
            not among them, a value is reached at the first byte that stands for it.
    """

    value: str
    scale: Fraction
    zero_point: int
    top: int
    bars: tuple[tuple[float, int], ...] = ()

    def bar(self, threshold: float) -> int:
        """The smallest byte that reaches a real value; it may lie beyond the bytes."""
        return dict(self.bars).get(threshold, ceil(Fraction(threshold) / self.scale + self.zero_point))


@dataclass(frozen=True)
class Encoding:
    """How a step function's codes become bytes.

    Attributes:
        gap: bytes from one code to the next where they are evenly spaced and ascending, else 0.
        scale, zero_point, top: as in Coded.
    """

    gap: int
    scale: Fraction
    zero_point: int
    top: int

    @classmethod
    def of(cls, function: StepFunction) -> Encoding | None:
        """Bytes that count levels from the smallest one; None where zero is no byte.

        Evenly spaced levels are counted in units of their spacing if the zero point stays an integer, since
        QuantizeLinear makes consecutive bytes; a single step reaches any two bytes.
        """
        levels = [int(level) for level in function.levels]
        gaps = {b - a for a, b in pairwise(levels)}
        gap = gaps.pop() if len(gaps) == 1 else 0
        for unit in dict.fromkeys([max(gap, 1), 1]):
            zero_point = -(min(levels) + function.offset / function.scale) / unit
            top = Fraction(max(levels) - min(levels), unit)
            if zero_point.denominator == 1 and 0 <= zero_point <= BYTE_MAX and top <= BYTE_MAX:
                spaced = gap // unit if gap > 0 else 0
                return cls(spaced, function.scale * unit, int(zero_point), int(top))
        return None

    def targets(self, function: StepFunction) -> NDArray[np.int64]:
        """The byte of every code."""
        unit = int(self.scale / function.scale)
        return (function.levels.astype(np.int64) - int(function.levels.min())) // unit


@dataclass(frozen=True)
class ByteFormat:
    """Bytes for real values that saturate: value = scale * (byte - zero_point).

    Attributes:
        scale: exact positive unit.
        zero_point: 0..255.
        bars: as in Coded.
    """

    scale: Fraction
    zero_point: int
    bars: tuple[tuple[float, int], ...] = ()

    def holding(self, value: str) -> Coded:
        """A value in this format."""
        return Coded(value, self.scale, self.zero_point, BYTE_MAX, self.bars)


@dataclass
class State:
    """One conversion to QDQ.

    Attributes:
        e: emitter over the real graph.
        readers: nodes that read each tensor.
        coded: tensors held as bytes.
        named: real tensor that bytes carry.
        absorbed: nodes that became part of an earlier one.
        carried: tensors whose real value some ONNX value of the same name carries, in order.
        notes: what is not plain QDQ, in words.
        formats: bytes chosen for residual sums and the layers in front of them.
        choices: for a layer in front of a sum, formats of both; the first that loses nothing is taken.
        rounds: whether sums, and what stands around the image, may lose precision.
    """

    e: Emitter
    readers: dict[str, list[Node]]
    formats: dict[str, ByteFormat]
    choices: dict[str, list[dict[str, ByteFormat]]]
    rounds: bool
    coded: dict[str, Coded] = field(default_factory=dict)
    named: dict[Coded, str] = field(default_factory=dict)
    absorbed: set[str] = field(default_factory=set)
    carried: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def graph(self) -> Graph:
        return self.e.graph

    def sole_reader(self, tensor: str) -> Node | None:
        """The only node that reads a tensor that is no graph output."""
        readers = self.readers[tensor]
        return readers[0] if len(readers) == 1 and tensor not in self.graph.outputs else None

    def note(self, name: str, text: str) -> None:
        """Say what of a tensor is not plain QDQ."""
        self.notes.append(f"{name}: {text} in the {'QDQ8' if self.rounds else 'QDQ'} file")

    def finish_float(self, name: str, value: str) -> None:
        """Let a float value carry a real tensor."""
        self.e.bind(value, name, FLOAT)
        self.carried.append(name)

    def finish_coded(self, name: str, coded: Coded) -> None:
        """Let bytes carry a real tensor.

        Readers that work on bytes read the bytes; for the others there is a DequantizeLinear of the tensor's name, made
        when the first one asks, since ONNX Runtime computes one that nobody reads.
        """
        self.coded[name] = coded
        if name in self.graph.outputs:
            self.finish_float(name, self._dequantize(coded))
        else:
            self.named.setdefault(coded, name)

    def real(self, tensor: str) -> str:
        """The float value of a real tensor."""
        return self.dequantized(self.coded[tensor]) if tensor in self.coded else tensor

    def dequantized(self, coded: Coded) -> str:
        """The float value of bytes, made once."""
        if coded not in self.e.memo:
            value = self._dequantize(coded)
            if coded in self.named:
                self.finish_float(self.named[coded], value)
            self.e.memo[coded] = self.named.get(coded, value)
        return self.e.memo[coded]

    def _dequantize(self, coded: Coded) -> str:
        scale = self.e.constant(np.array(float(coded.scale), FLOAT))
        zero_point = self.e.constant(np.array(coded.zero_point, UINT8))
        return self.e.node("DequantizeLinear", [coded.value, scale, zero_point], "real", FLOAT)

    def quantized(self, value: str, target: Coded) -> str:
        """Bytes of a float value: QuantizeLinear with the scale and zero point of `target`."""
        scale = self.e.constant(np.array(float(target.scale), FLOAT))
        zero_point = self.e.constant(np.array(target.zero_point, UINT8))
        return self.e.node("QuantizeLinear", [value, scale, zero_point], "bytes", UINT8)

    def float_constant(self, values: list[float], rank: int) -> str:
        """Per-channel float32 constant for tensors of this per-sample rank."""
        return self.e.per_channel(np.array(values, np.float64), rank, FLOAT)

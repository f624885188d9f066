"""Step functions in the QDQ flavour: QuantizeLinear where they are uniform, comparisons where not."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qexport.backends.onnx.emitter import FLOAT, INT32, UINT8, Emitter
from qexport.backends.onnx.qdq_state import BYTE_MAX, Coded, Encoding, State
from qexport.ir import Node
from qexport.ops import MaxPool, Step
from qexport.stepfunction import StepFunction

TIE_SHARE = 2.0**-16
"""Share of a step by which inputs are raised before QuantizeLinear: an input exactly at a threshold belongs to the
step above it, while QuantizeLinear rounds halves to even."""


def emit_step(s: State, node: Node, op: Step) -> None:
    """A quantizer on a float tensor; if only a maximum pool reads it, behind the pool, with fewer values to compare."""
    function, e, x = op.function, s.e, s.real(node.inputs[0])
    pool = s.sole_reader(node.name)
    if pool is not None and isinstance(pool.op, MaxPool):
        s.absorbed.add(pool.name)
        node, x = pool, max_pooled(e, pool.op, x)
    encoding = Encoding.of(function)
    if encoding is None:
        s.notes.append(f"{node.name}: zero is no level of the quantizer; its values stay float")
        levels = e.cast(_compared(s, x, function, function.levels.astype(np.int64)), FLOAT, "levels")
        value = e.node("Mul", [levels, e.constant(np.array(float(function.scale), FLOAT))], "scaled")
        s.finish_float(node.name, e.node("Add", [value, e.constant(np.array(float(function.offset), FLOAT))], "values"))
        return
    if function.is_uniform and encoding.gap == 1 and function.n_steps > 1:
        value = _quantized(s, x, function, encoding)
    else:
        s.notes.append(f"{node.name}: {function.n_steps} thresholds kept as float comparisons in the QDQ file")
        value = e.cast(_compared(s, x, function, encoding.targets(function)), UINT8, "codes")
    s.finish_coded(node.name, Coded(value, encoding.scale, encoding.zero_point, encoding.top))


def max_pooled(e: Emitter, op: MaxPool, value: str) -> str:
    """Maximum pooling of floats or bytes."""
    pads = [before for before, _ in op.pads] + [after for _, after in op.pads]
    settings: dict[str, Any] = {"kernel_shape": op.kernel, "strides": op.stride, "pads": pads}
    if op.dilation != (1, 1):
        settings["dilations"] = op.dilation
    return e.node("MaxPool", [value], "maximum", **settings)


def saturated(s: State, value: str, low: int, top: int) -> str:
    """Clip on the byte, after QuantizeLinear: before it, it would keep ONNX Runtime from fusing the convolution."""
    if low == 0 and top == BYTE_MAX:
        return value
    ends = [s.e.constant(np.array(end, UINT8)) for end in (low, top)]
    return s.e.node("Clip", [value, *ends], "codes")


def _quantized(s: State, x: str, function: StepFunction, encoding: Encoding) -> str:
    """round((x - t_1 + spacing / 2) / spacing), for evenly spaced thresholds anywhere, not only at half steps."""
    e = s.e
    first, last = (float(function.thresholds[i]) for i in (0, -1))
    spacing = (last - first) / (function.n_steps - 1)
    shift = np.array(spacing * (0.5 + TIE_SHARE) - first, FLOAT)
    moved = e.node("Add", [x, e.constant(shift)], "moved")
    parameters = [e.constant(np.array(spacing, FLOAT)), e.constant(np.array(0, UINT8))]
    return saturated(s, e.node("QuantizeLinear", [moved, *parameters], "codes", UINT8), 0, encoding.top)


def compared_bytes(s: State, x: str, bars: NDArray[np.int64], targets: NDArray[np.int64], rank: int) -> str:
    """targets[#{i : x >= bars[c, i]}] for bytes x, their bars [C, n] and ascending targets, all of them bytes."""
    return _counted(s, x, [s.e.per_channel(column, rank, UINT8) for column in bars.T], targets)


def _compared(s: State, x: str, function: StepFunction, targets: NDArray[np.int64]) -> str:
    """targets[code(x)] for floats x: bytes where the targets are ascending bytes, else int32."""
    return _counted(s, x, [s.e.constant(np.array(t, FLOAT)) for t in function.thresholds], targets)


def _counted(s: State, x: str, bars: list[str], targets: NDArray[np.int64]) -> str:
    """The first target and the sum of its increments at every bar that x reaches."""
    e, total = s.e, ""
    is_byte = targets[0] >= 0 and targets[-1] <= BYTE_MAX and bool(np.all(np.diff(targets) >= 0))
    dtype = UINT8 if is_byte else INT32
    for bar, rise in zip(bars, np.diff(targets).tolist(), strict=True):
        part = e.cast(e.node("GreaterOrEqual", [x, bar], "reached", bool), dtype, "step")
        if rise != 1:
            part = e.node("Mul", [part, e.constant(np.array(rise, dtype))], "gap")
        total = e.node("Add", [total, part], "steps") if total else part
    return e.node("Add", [total, e.constant(np.array(targets[0], dtype))], "level") if targets[0] else total

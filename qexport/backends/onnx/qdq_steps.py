"""Step functions in the QDQ flavour: QuantizeLinear where they are uniform, comparisons where not."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qexport.backends.onnx.emitter import FLOAT, INT32, UINT8, Emitter
from qexport.backends.onnx.qdq_bend import CODE_ZERO, LAST_STEP, Bend, find_bend
from qexport.backends.onnx.qdq_state import BYTE_MAX, Coded, Encoding, State
from qexport.ir import Node
from qexport.ops import MaxPool, Step
from qexport.stepfunction import FEW_STEPS, StepFunction

TIE_SHARE = 2.0**-16
"""Share of a step by which inputs are raised before QuantizeLinear: an input exactly at a threshold belongs to the
step above it, while QuantizeLinear rounds halves to even."""


def emit_step(s: State, node: Node, op: Step) -> None:
    """A quantizer on its own; if only a maximum pool reads it, behind the pool, with fewer values to compare."""
    function, e, coded = op.function, s.e, s.coded.get(node.inputs[0])
    encoding = Encoding.of(function)
    on_bytes = coded is not None and encoding is not None and function.n_steps <= FEW_STEPS
    x = coded.value if coded is not None and on_bytes else s.real(node.inputs[0])
    pool = s.sole_reader(node.name)
    if pool is not None and isinstance(pool.op, MaxPool):
        s.absorbed.add(pool.name)
        node, x = pool, max_pooled(e, pool.op, x)
    if encoding is None:
        s.note(node.name, "zero is no level of the quantizer; its values stay float")
        levels = e.cast(_compared(s, x, function, function.levels.astype(np.int64)), FLOAT, "levels")
        value = e.node("Mul", [levels, e.constant(np.array(float(function.scale), FLOAT))], "scaled")
        s.finish_float(node.name, e.node("Add", [value, e.constant(np.array(float(function.offset), FLOAT))], "values"))
        return
    if coded is not None and on_bytes:
        s.note(node.name, f"{function.n_steps} thresholds kept as byte comparisons")
        value = _codes_of_bytes(s, x, coded, function, encoding.targets(function))
    elif function.is_uniform and encoding.gap == 1 and function.n_steps > 1:
        value = _quantized(s, x, function, encoding)
    else:
        s.note(node.name, f"{function.n_steps} thresholds kept as float comparisons")
        value = e.cast(_compared(s, x, function, encoding.targets(function)), UINT8, "codes")
    s.finish_coded(node.name, Coded(value, encoding.scale, encoding.zero_point, encoding.top))


def _codes_of_bytes(s: State, x: str, coded: Coded, function: StepFunction, targets: NDArray[np.int64]) -> str:
    """targets[code(value of the byte)]."""
    bars = [coded.bar(float(threshold)) for threshold in function.thresholds]
    always, reached = sum(bar <= 0 for bar in bars), sum(bar <= coded.top for bar in bars)
    kept = bars[always:reached] or [0]  # [0]: all bytes have one code
    start = always if reached > always else max(always - 1, 0)
    return byte_codes(s, x, kept, targets[start : start + len(kept) + 1])


def byte_codes(s: State, x: str, bars: Sequence[int], targets: NDArray[np.int64]) -> str:
    """targets[#{i : x >= bars[i]}] for bytes x and ascending targets, all of them bytes.

    Three bars that raise the code by ones need no comparisons (qdq_bend.py).
    """
    bend = find_bend(bars) if np.array_equal(targets, np.arange(4)) else None
    if bend is not None:
        return _bent_codes(s, x, bend)
    return s.e.cast(_counted(s, x, [s.e.constant(np.array(bar, UINT8)) for bar in bars], targets), UINT8, "codes")


def _bent_codes(s: State, x: str, bend: Bend) -> str:
    """The sum of x and the bent x, rounded: QLinearAdd in ONNX Runtime, for half the time of three comparisons."""
    e = s.e
    bent = e.node("Min" if bend.below else "Max", [x, e.constant(np.array(bend.knot, UINT8))], "bent")
    parts = [
        s.dequantized(Coded(value, scale, zero_point, BYTE_MAX))
        for value, scale, zero_point in zip([x, bent], bend.scales, bend.zero_points, strict=True)
    ]
    total = e.node("Add", parts, "even", FLOAT)
    codes = s.quantized(total, Coded(total, Fraction(1), CODE_ZERO, BYTE_MAX))
    return codes if bend.value(BYTE_MAX) < LAST_STEP else saturated(s, codes, 0, int(LAST_STEP))


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

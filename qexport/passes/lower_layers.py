"""Lowering of convolutions and linear layers."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from qexport.errors import AccumulatorError
from qexport.ir import Node, TensorType
from qexport.ir.types import INT32_MAX
from qexport.ops import Add, BorderBias, Conv2d, Linear, Rescale, Slice, Weight
from qexport.ops.weight import spread_over_groups
from qexport.passes.fixed import Carrier
from qexport.passes.fixedpoint import step_for
from qexport.passes.pending import Pending, rationals

ACCUMULATOR_SHARE = 0.9
MAX_BORDER_BITS = 12
CONV_INPUT_BITS = 16
"""Widest fixed-point input of a convolution: backends multiply bytes and split it in two planes."""

LINEAR_INPUT_BITS = 31
MAX_CODE = 255
MAX_UNITS = 8
"""Most units of a layer's input that get a product of their own."""


def lower_layer(carrier: Carrier, node: Node, sources: list[Pending]) -> Pending:
    """Integer product; the scales of weight and input become the gain that is owed."""
    op = node.op
    assert isinstance(op, Conv2d | Linear)
    x = carrier.integers(node.inputs[0])
    weight = op.weight
    plain = replace(op, weight=replace(weight, scale=None, input_unit=None))
    scale = rationals(weight.scale or ())
    if weight.input_unit is not None:
        if not x.is_exact_integer or list(x.gain) != list(weight.input_unit):
            raise AccumulatorError("a float layer lost the unit its weight was fitted to", where=node.name)
        return _product(carrier, node, plain, x, scale)
    fits = x.is_exact_integer and _bound(carrier, weight, x) <= INT32_MAX
    if fits and x.uniform_gain is None and not weight.edge_bits and _can_split(op, x):
        return _product_by_unit(carrier, node, plain, x, scale)
    if not x.is_exact_integer or x.uniform_gain is None or (not fits and not _is_codes(carrier, x)):
        x = _narrowed(carrier, node, weight)
    return _product(carrier, node, plain, x, scale * x.gain[0])


def _product(carrier: Carrier, node: Node, op: Conv2d | Linear, x: Pending, gain: np.ndarray) -> Pending:
    try:
        name = carrier.out.add(carrier.out.unique(node.name), op, x.tensor, source=node.source)
    except AccumulatorError as error:
        where = f"{node.name}, {error.where}"
        raise AccumulatorError(
            error.what, where=where, got=error.got, expected=error.expected, remedy=error.remedy
        ) from error
    assert isinstance(node.op, Conv2d | Linear)
    bound = x.error * float(np.abs(node.op.weight.real()).reshape(len(gain), -1).sum(1).max()) if x.error else 0.0
    return Pending(name, gain, gain * 0, (), bound)


def _is_codes(carrier: Carrier, x: Pending) -> bool:
    """Whether the integers are a quantizer's own levels: to narrow them would change what was trained."""
    return x.error == 0 and carrier.out.types[x.tensor].max_abs <= MAX_CODE


def _bound(carrier: Carrier, weight: Weight, x: Pending) -> float:
    return _reached(weight, carrier.out.types[x.tensor])


def _reached(weight: Weight, x: TensorType) -> float:
    """Largest |sum| any output channel can reach: sum of |level| times the largest |value| of its input channel."""
    reach = np.maximum(np.abs(x.lo), np.abs(x.hi)).astype(np.float64)
    products = np.abs(weight.array.astype(np.float64)) * spread_over_groups(reach, weight.array)
    return float(products.reshape(len(products), -1).sum(1).max())


def _narrowed(carrier: Carrier, node: Node, weight: Weight) -> Pending:
    """A wide input on the finest step the accumulator leaves room for (docs/arithmetic.md, eq. 10)."""
    source = node.inputs[0]
    x = carrier.real.types[source]
    bits = CONV_INPUT_BITS if isinstance(node.op, Conv2d) else LINEAR_INPUT_BITS
    step = step_for(x.max_abs, bits)
    while _reached(weight, x) > INT32_MAX * ACCUMULATOR_SHARE * step:
        step *= 2
    if x.max_abs < 8 * step:
        raise AccumulatorError(
            "no fixed-point input of 4 bits fits the accumulator",
            where=node.name,
            got=f"range {x.max_abs:.3g}, step {float(step):.3g}",
            remedy="use fewer --edge-bits, or a network with a quantizer in front of the layer",
        )
    return carrier.fixed(source, step)


def _can_split(op: Conv2d | Linear, x: Pending) -> bool:
    """Whether the channels are a few runs of one unit each: quantizers side by side, not a convolution's scales."""
    runs = 1 + sum(a != b for a, b in zip(x.gain[1:], x.gain[:-1], strict=True))
    return runs <= MAX_UNITS and not (isinstance(op, Conv2d) and op.groups != 1)


def _product_by_unit(carrier: Carrier, node: Node, op: Conv2d | Linear, x: Pending, scale: np.ndarray) -> Pending:
    """A low-bit layer over channels of a few units (a concatenation): one product per unit, summed as fixed point."""
    step = carrier.own_step(node.name, headroom=2)
    total: Pending | None = None
    start = 0
    while start < len(x.gain):
        stop = start + 1
        while stop < len(x.gain) and x.gain[stop] == x.gain[start]:
            stop += 1
        part = _product_of_slice(carrier, node, op, x, start, stop, scale)
        fixed = carrier.settle(part, f"{node.name}.part{start}", step)
        if total is None:
            total = fixed
        else:
            name = carrier.out.add(carrier.out.unique(f"{node.name}.sum"), Add(), total.tensor, fixed.tensor)
            total = replace(total, tensor=name, error=total.error + fixed.error)
        start = stop
    assert total is not None
    return total


def _product_of_slice(
    carrier: Carrier, node: Node, op: Conv2d | Linear, x: Pending, start: int, stop: int, scale: np.ndarray
) -> Pending:
    shape = carrier.out.types[x.tensor].shape
    ranges = ((start, stop, 1), *((0, n, 1) for n in shape[1:]))
    piece = carrier.out.add(carrier.out.unique(f"{node.name}.input{start}"), Slice(ranges), x.tensor)
    weight = replace(op.weight, array=np.ascontiguousarray(op.weight.array[:, start:stop]))
    name = carrier.out.add(
        carrier.out.unique(f"{node.name}.part{start}"), replace(op, weight=weight), piece, source=node.source
    )
    gain = scale * x.gain[start]
    return Pending(name, gain, gain * 0, (), x.error * float(np.abs(node.op.weight.real()).sum()))  # type: ignore[attr-defined]


def lower_border(carrier: Carrier, node: Node, sources: list[Pending]) -> Pending:
    """Border correction in accumulator steps, on a finer accumulator where whole steps are too coarse (eq. 8)."""
    op = node.op
    assert isinstance(op, BorderBias)
    (x,) = sources
    gain = np.array([float(g) for g in x.gain])
    steps = op.values / np.where(gain == 0, 1.0, gain)[:, None, None]
    bits = 0
    peak = carrier.out.types[x.tensor].max_abs + np.abs(steps).max()
    while bits < MAX_BORDER_BITS and np.abs(steps * 2**bits - np.rint(steps * 2**bits)).max() > 1e-6:
        bits += 1
    while bits and peak * 2**bits > INT32_MAX * ACCUMULATOR_SHARE:
        bits -= 1
    tensor = x.tensor
    if bits:
        one = np.ones(1, np.int64)
        tensor = carrier.out.add(f"{node.name}.finer", Rescale(one << bits, one * 0, 0), tensor)
    values = np.rint(steps * 2**bits).astype(np.int64)
    error = float((np.abs(values / 2**bits - steps) * np.abs(gain)[:, None, None]).max())
    name = carrier.out.add(node.name, BorderBias(values, op.rows, op.cols), tensor, source=node.source)
    return Pending(name, x.gain / Fraction(2**bits), x.bias, (), x.error + error)

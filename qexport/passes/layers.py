"""Make every convolution and linear layer of the real graph ready for integers (docs/arithmetic.md, section 4).

Requires: a captured real graph. Ensures: every Conv2d and Linear has integer levels and scales; its input is integers
times a unit, or a wide tensor that lowering will carry as fixed point; offsets of inputs are moved behind the layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from qexport.ir import Graph, Node, TensorType, prune
from qexport.ir.types import INT32_MAX
from qexport.ops import Affine, BorderBias, Conv2d, L2Norm, Linear, Step, Weight
from qexport.ops.weight import spread_over_groups
from qexport.passes.edge_record import EdgeRecord
from qexport.passes.edge_weights import ACCUMULATOR_SHARE, MAX_EDGE_BITS, fit_edge_levels, wide_bits
from qexport.passes.pending import Rationals, rationals
from qexport.passes.units import integer_units
from qexport.stepfunction import StepFunction

MAX_BORDER_BITS = 12
"""Most fraction bits of a border correction; as many are used as the accumulator has room for."""


DEFAULT_ACT_BITS = 8
"""Bits of activations that training left float and qexport calibrates."""


@dataclass(frozen=True)
class LayerOptions:
    """Choices for what training left float.

    Attributes:
        edge_bits: weight bits of float layers; None takes the widest whose accumulator is proven in int32.
        act_bits: bits of activations that get a calibrated quantizer.
        ranges: real tensor -> (lo, hi) for calibrated quantizers; empty where none were measured.
        bits_of: real tensors whose calibrated quantizer has other bits than act_bits.
        edge_weights: float layer -> levels fitted to data (`fit_edge_weights`); the others are fitted here, without.
    """

    edge_bits: int | None = None
    act_bits: int = DEFAULT_ACT_BITS
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    bits_of: dict[str, int] = field(default_factory=dict)
    edge_weights: Mapping[str, EdgeRecord] = field(default_factory=dict)


def quantize_layers(graph: Graph, options: LayerOptions) -> Graph:
    """Rewrite the captured graph into the quantized real graph.

    Raises:
        AccumulatorError: no width of a float layer fits int32, or a low-bit layer overflows it.
    """
    out = Graph()
    for name, tensor_type in graph.inputs.items():
        out.add_input(name, tensor_type)
    renamed = {name: name for name in graph.inputs}
    for node in graph.nodes:
        inputs = tuple(renamed[t] for t in node.inputs)
        if isinstance(node.op, L2Norm):
            inputs = (_codes(out, inputs[0], node.inputs[0], options),)
        if isinstance(node.op, Conv2d | Linear):
            renamed[node.name] = _quantize_layer(out, replace(node, inputs=inputs), node.inputs[0], options)
        else:
            renamed[node.name] = out.add(node.name, node.op, *inputs, source=node.source)
    out.outputs = [renamed[name] for name in graph.outputs]
    return prune(out)


def needs_range(graph: Graph) -> dict[str, bool]:
    """Real tensors that feed a layer without being integers: name -> whether the layer is a low-bit one.

    A norm counts as one: of anything but exact integers the direction of a short vector is not known.
    """
    units = integer_units(graph)
    found: dict[str, bool] = {}
    for node in graph.nodes:
        if isinstance(node.op, L2Norm) and node.inputs[0] not in units:
            found[node.inputs[0]] = True
        if isinstance(node.op, Conv2d | Linear) and not _ready(graph, node.inputs[0], node.op.weight, units):
            found[node.inputs[0]] = found.get(node.inputs[0], False) or node.op.weight.is_quantized
    return found


def _ready(graph: Graph, x: str, weight: Weight, units: dict[str, Rationals]) -> bool:
    """Whether a layer can run on its input as integers, possibly after moving an affine behind it."""
    if x in units:
        return True
    producer = next((n for n in graph.nodes if n.name == x), None)
    if producer is None or not isinstance(producer.op, Affine) or producer.inputs[0] not in units:
        return False
    return all(producer.op.gain) and (not weight.is_quantized or len(set(producer.op.gain)) == 1)


def _quantize_layer(out: Graph, node: Node, original_input: str, options: LayerOptions) -> str:
    """Add one layer in its integer-ready form; returns the tensor that stands for its old output."""
    op = node.op
    assert isinstance(op, Conv2d | Linear)
    x = node.inputs[0]
    wants_codes = op.weight.is_quantized or isinstance(op, Conv2d)
    if wants_codes and not _ready(out, x, op.weight, integer_units(out)):
        x = _codes(out, x, original_input, options)
    source = _input_source(out, x, op.weight)
    weight = _integer_weight(op, out.types[source.tensor], source, options, node.name)
    op = replace(op, weight=weight)
    record = options.edge_weights.get(node.name)
    shift = rationals([Fraction(v) for v in record.shift] if record else [Fraction(0)] * len(weight.array))
    if source.offset is not None:
        return _layer_with_offset(out, node, op, source, shift)
    if not any(shift):
        return out.add(node.name, op, source.tensor, source=node.source)
    product = out.add(out.unique(f"{node.name}.unshifted"), op, source.tensor, source=node.source)
    return out.add(node.name, _shifted(shift), product, source=node.source)


def _shifted(shift: Rationals) -> Affine:
    return Affine((Fraction(1),) * len(shift), tuple(shift))


def _codes(out: Graph, x: str, original: str, options: LayerOptions) -> str:
    """The tensor behind a calibrated quantizer where its range is known and it is no integers already."""
    if original not in options.ranges or x in integer_units(out):
        return x
    bits = options.bits_of.get(original, options.act_bits)
    return _add_quantizer(out, x, options.ranges[original], bits)


@dataclass(frozen=True, eq=False)
class InputSource:
    """What a layer will really read: its input = gain * unit * (integer + offset), per channel.

    Attributes:
        tensor: real tensor, the layer's own input, or the one before an affine that was moved behind the layer.
        unit: tensor = unit * integer; None for a wide tensor.
        gain: gain of the moved affine, 1 without one.
        offset: bias of the moved affine in integer steps, bias / (gain * unit); None without one.
    """

    tensor: str
    unit: Rationals | None
    gain: Rationals
    offset: Rationals | None = None


def _input_source(out: Graph, x: str, weight: Weight) -> InputSource:
    units = integer_units(out)
    ones = rationals([Fraction(1)], out.types[x].channels)
    if x in units:
        return InputSource(x, units[x], ones)
    if not _ready(out, x, weight, units):
        return InputSource(x, None, ones)
    affine = out.node(x)
    assert isinstance(affine.op, Affine)
    unit, gain = units[affine.inputs[0]], rationals(affine.op.gain)
    return InputSource(affine.inputs[0], unit, gain, rationals(affine.op.bias) / (gain * unit))


def _add_quantizer(out: Graph, x: str, span: tuple[float, float], bits: int) -> str:
    """A calibrated uniform quantizer in front of a layer, shared by the layers that read the same tensor."""
    name = f"{x}.quantized"
    if name in out.types:
        return name
    lo, hi = span
    # A range of zero says nothing about the step; any will do for a tensor that is always zero.
    peak = Fraction(max(-lo, hi)) or Fraction(1)
    if lo >= 0:
        function = StepFunction.uniform(peak / (2**bits - 1), 0, 2**bits - 1)
    else:
        function = StepFunction.uniform(peak / (2 ** (bits - 1) - 1), 1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)
    return out.add(name, Step(function, calibrated=True), x)


def _integer_weight(
    op: Conv2d | Linear, x: TensorType, source: InputSource, options: LayerOptions, name: str
) -> Weight:
    """Levels, scale and input units of a layer that reads `source`."""
    weight = op.weight
    if weight.is_quantized:
        gain = source.gain[0]  # uniform, or the affine would not have been moved
        return replace(weight, scale=tuple(s * gain for s in weight.scale or ()))
    record = options.edge_weights.get(name)
    edge_bits = options.edge_bits or MAX_EDGE_BITS
    signed = bool(x.lo.min() < 0)
    if source.unit is None:
        if record is not None:
            return record.weight(weight.array, edge_bits, None, name)
        # Wide input: lowering picks its step, so the weight leaves it room in the accumulator.
        bits = wide_bits(weight.array, options.edge_bits)
        return fit_edge_levels(weight.array, np.ones(x.channels), bits, name, options.edge_bits, signed=signed)
    unit = np.array([float(u) for u in source.unit])
    factor = unit * np.array([float(g) for g in source.gain])
    reach = np.maximum(np.abs(x.lo), np.abs(x.hi)) / np.abs(unit)
    absorbed = weight.array * spread_over_groups(factor, weight.array)
    if record is not None:
        return record.weight(absorbed, edge_bits, tuple(source.unit), name)
    fitted = fit_edge_levels(absorbed, reach, options.edge_bits, name, options.edge_bits, signed=signed)
    return replace(fitted, input_unit=tuple(source.unit))


def _layer_with_offset(out: Graph, node: Node, op: Conv2d | Linear, source: InputSource, shift: Rationals) -> str:
    """Layer on integers, then the share of the input's offset: constant inside, smaller at padded borders."""
    assert source.unit is not None and source.offset is not None
    weight = op.weight
    product = out.add(out.unique(f"{node.name}.product"), op, source.tensor, source=node.source)
    # Real value of one accumulator step: levels fitted to integers carry the input unit in their scale already;
    # trained ones may read channels of several units (a concatenation), which then count in units of the first.
    scale, offset = rationals(weight.scale or ()), source.offset
    if weight.input_unit is None:
        scale, offset = scale * source.unit[0], offset * source.unit / source.unit[0]
    inside = _offset_sums(weight.array, offset, np.ones(weight.array.shape[2:], bool))
    if isinstance(op, Conv2d) and any(map(any, op.pads)):
        border = _border(op, out.types[source.tensor], out.types[product], offset, scale, inside)
        product = out.add(f"{node.name}.border", border, product, source=node.source)
    return out.add(node.name, _shifted(inside * scale + shift), product, source=node.source)


def _offset_sums(levels: NDArray, offset: Rationals, taps: NDArray[np.bool_]) -> Rationals:
    """sum over input channels and the given taps of level * offset, exact, per output channel [O]."""
    per_channel = (levels * taps).reshape(*levels.shape[:2], -1).sum(-1, dtype=np.int64)  # [O, I/G]
    beside = spread_over_groups(offset, levels).reshape(per_channel.shape)
    rows = zip(per_channel.tolist(), beside, strict=True)
    return rationals([sum((w * v for w, v in zip(*row, strict=True)), Fraction(0)) for row in rows])


def _border(
    op: Conv2d, x: TensorType, y: TensorType, offset: Rationals, scale: Rationals, inside: Rationals
) -> BorderBias:
    """What taps outside the image take away from the constant share, one class per distinct row and column."""
    kernel = op.weight.array.shape[2:]
    masks = [
        _valid_taps(y.shape[1 + a], x.shape[1 + a], kernel[a], op.stride[a], op.pads[a][0], op.dilation[a])
        for a in (0, 1)
    ]
    (row_masks, rows), (col_masks, cols) = (np.unique(m, axis=0, return_inverse=True) for m in masks)
    fraction = 2 ** _border_bits(y, scale)
    values = np.empty((len(inside), len(row_masks), len(col_masks)))
    for r, row in enumerate(row_masks):
        for s, col in enumerate(col_masks):
            sums = _offset_sums(op.weight.array, offset, row[:, None] & col[None, :]) - inside
            steps = [Fraction(round(v * fraction), fraction) for v in sums]
            values[:, r, s] = [float(v * k) for v, k in zip(steps, scale, strict=True)]
    classes = (rows.reshape(-1).astype(np.int64), cols.reshape(-1).astype(np.int64))
    return BorderBias(values, *classes, padding=tuple(-v for v in offset))


def _border_bits(y: TensorType, scale: Rationals) -> int:
    """Fraction bits that keep the accumulator and its largest border correction, at most as large again, in int32."""
    reach = np.maximum(np.abs(y.lo), np.abs(y.hi)) / np.array([abs(float(s)) for s in scale])
    room = INT32_MAX * ACCUMULATOR_SHARE / max(2 * float(reach.max()), 1.0)
    return max(0, min(MAX_BORDER_BITS, int(np.floor(np.log2(room)))))


def _valid_taps(n_out: int, n_in: int, kernel: int, stride: int, pad: int, dilation: int) -> NDArray[np.bool_]:
    """Which taps of the kernel lie inside the input, per output position: bool [n_out, kernel]."""
    positions = np.arange(n_out)[:, None] * stride - pad + np.arange(kernel)[None, :] * dilation
    return (positions >= 0) & (positions < n_in)

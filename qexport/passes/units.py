"""Which real tensors are integers times a per-channel unit, before anything is lowered."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from qexport.errors import GraphError
from qexport.ir import Graph, Node
from qexport.ops import Affine, AvgPool, Clip, Concat, MaxPool, Pad, Reshape, Slice, Step, Transpose
from qexport.passes.pending import Rationals, rationals


def integer_units(graph: Graph) -> dict[str, Rationals]:
    """Tensors with value = unit[c] * integer, and their units [C] (docs/arithmetic.md, eq. 4).

    The image has unit 1, a quantizer's output the quantizer's scale; ops that move values carry units along, a mean
    divides them by its area. A convolution whose input is listed can run on integers as it stands.
    """
    units: dict[str, Rationals] = {
        name: rationals([Fraction(1)], tensor_type.channels) for name, tensor_type in graph.inputs.items()
    }
    for node in graph.nodes:
        found = _node_units(graph, node, units)
        if found is not None:
            units[node.name] = found
    return units


def _node_units(graph: Graph, node: Node, units: dict[str, Rationals]) -> Rationals | None:
    op = node.op
    if isinstance(op, Step):
        return rationals([op.function.scale], graph.types[node.name].channels)
    if any(tensor not in units for tensor in node.inputs):
        return None
    sources = [units[tensor] for tensor in node.inputs]
    if isinstance(op, MaxPool):
        return rationals([abs(unit) for unit in sources[0]])  # lowering negates channels of negative unit
    if isinstance(op, Clip):
        one_sign = all(u > 0 for u in sources[0]) or all(u < 0 for u in sources[0])
        return sources[0] if op.lo in (None, 0) and op.hi is None and one_sign else None
    if isinstance(op, AvgPool):
        return sources[0] / Fraction(op.integer_form()[0])
    if isinstance(op, Affine) and not any(op.bias) and all(op.gain):
        return sources[0] * rationals(op.gain)
    if isinstance(op, Pad):
        before, after = op.pads[0]
        edge = sources[0][:1]  # padded zeros are integers in any unit; repeating a neighbour keeps units uniform
        return np.concatenate([np.repeat(edge, before), sources[0], np.repeat(edge, after)])
    if isinstance(op, Slice | Reshape | Transpose | Concat):
        try:
            return op.map_channels(*sources)
        except GraphError:
            return None  # it joins channels of different units
    return None

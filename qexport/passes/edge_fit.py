"""Weights of float layers fitted to what the layers read in data.

Requires: the captured real graph and moments of the inputs of its float layers. Ensures: levels no wider than asked
for, accumulators proven as without data; kept in a form from which validation rebuilds them without the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qexport.ir import Graph, Node
from qexport.ops import Affine, Conv2d, Linear
from qexport.ops.weight import spread_over_groups
from qexport.passes.edge_record import EdgeRecord
from qexport.passes.edge_weights import MAX_EDGE_BITS, refine_levels, wide_bits
from qexport.passes.layers import LayerOptions, quantize_layers

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class InputMoments:
    """What a float layer reads, over images and positions, zeros of its padding included.

    Attributes:
        mean: [G, K], K = I/G * kh * kw taps of each of G groups, in the order of the weight's axes.
        covariance: [G, K, K]; None for a layer of too many taps, which then only gets its mean error corrected.
    """

    mean: Floats
    covariance: Floats | None


def float_layers(graph: Graph) -> list[Node]:
    """Convolutions and linear layers of a captured graph that training left float."""
    return [n for n in graph.nodes if isinstance(n.op, Conv2d | Linear) and not n.op.weight.is_quantized]


def fit_edge_weights(graph: Graph, options: LayerOptions, moments: Mapping[str, InputMoments]) -> dict[str, EdgeRecord]:
    """Levels, scale and shift of every float layer with moments, for `LayerOptions.edge_weights`.

    The levels minimise the variance of the output's error (`round_to_moments`), starting from those without data. The
    shift takes its mean away.

    Args:
        graph: captured real graph.
        options: as for `quantize_layers`; its edge_weights are not read.
        moments: layer -> moments of its real input.
    """
    real = quantize_layers(graph, replace(options, edge_weights={}))
    found = {}
    for node in float_layers(graph):
        if node.name in moments:
            product = f"{node.name}.product"
            moved = product in real.types
            gain = _gain(graph, node) if moved else np.ones(graph.types[node.inputs[0]].channels)
            found[node.name] = _fit(node, real.node(product if moved else node.name), real, gain, moments[node.name])
    return found


def _gain(graph: Graph, node: Node) -> Floats:
    affine = graph.node(node.inputs[0]).op
    assert isinstance(affine, Affine)
    return affine.floats()[0]


def _fit(node: Node, integer_ready: Node, real: Graph, gain: Floats, moments: InputMoments) -> EdgeRecord:
    """Fit one layer; `integer_ready` is its form without data, `gain` that of an affine moved behind it."""
    op, x = integer_ready.op, real.types[integer_ready.inputs[0]]
    assert isinstance(op, Conv2d | Linear) and isinstance(node.op, Conv2d | Linear)
    fitted, weight = op.weight, node.op.weight.array
    is_wide = fitted.input_unit is None  # no integers yet: lowering picks their step so that the levels fit
    unit = np.array([float(u) for u in fitted.input_unit or [1] * x.channels])
    factor = unit * gain
    absorbed = weight * spread_over_groups(factor, weight)
    groups = moments.mean.shape[0]
    if moments.covariance is not None:
        taps = factor.reshape(groups, -1).repeat(weight[0, 0].size, axis=1)  # [G, K]
        metric = moments.covariance / (taps[:, :, None] * taps[:, None, :])
        reach = np.zeros(x.channels) if is_wide else np.maximum(np.abs(x.lo), np.abs(x.hi)) / np.abs(unit)
        bits = wide_bits(weight, fitted.edge_bits) if is_wide else min(fitted.edge_bits, MAX_EDGE_BITS)
        fitted = refine_levels(absorbed, fitted, reach, metric, 2 ** (bits - 1) - 1)
    record = EdgeRecord.of(absorbed, fitted)
    rebuilt = record.weight(absorbed, fitted.edge_bits, None).real() / spread_over_groups(factor, weight)
    error = (rebuilt - weight).reshape(groups, -1, moments.mean.shape[1])
    return replace(record, shift=tuple((-np.einsum("gok,gk->go", error, moments.mean)).reshape(-1).tolist()))

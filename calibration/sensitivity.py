"""What each integer choice costs by itself: the table that says what to change first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qexport.calibration.calibration import Calibration, Cost
from qexport.calibration.data import open_images
from qexport.calibration.perturb import Change, Effect, effects, quantize_activation
from qexport.ir import Graph, Node
from qexport.ops import Affine, Conv2d, Linear, Weight
from qexport.ops.weight import spread_over_groups
from qexport.passes.layers import LayerOptions, quantize_layers
from qexport.passes.streams import NARROW_BITS, Stream, choose_streams

if TYPE_CHECKING:
    from qexport.capture.capture import Captured

SENSITIVITY_IMAGES = 128
"""Every choice costs a pass through the network behind it, so not all images are used."""

HARMLESS_DB = 40.0
"""A choice that leaves the outputs a better signal-to-noise ratio, and every prediction, needs no remedy."""


def sensitivity(
    captured: Captured,
    calibration: Calibration,
    images: Any,
    *,
    edge_bits: int | None = None,
    limit: int = SENSITIVITY_IMAGES,
) -> tuple[Cost, ...]:
    """Cost of every activation quantizer, every float layer's weights and every 16-bit stream, worst first.

    Each is switched on alone in the float network. What they cost together is for `qexport validate`.

    Args:
        captured: captured network.
        calibration: its ranges.
        images: see `open_images`; the first `limit` are used.
        edge_bits: weight bits of float layers, see LayerOptions.
    """
    graph = captured.graph
    options = LayerOptions(edge_bits, calibration.act_bits, calibration.ranges, calibration.bits_of)
    real = quantize_layers(graph, options)
    changes = [
        *(quantize_activation(graph, t, span, calibration.bits(t)) for t, span in calibration.ranges.items()),
        *_weight_changes(graph, real),
        *_stream_changes(graph, choose_streams(real, calibration.streams)),
    ]
    found = effects(graph, changes, open_images(images, graph, limit=limit), "measuring sensitivity")
    classifies = len(graph.types[graph.outputs[0]].shape) == 1
    remedies = {"activation": _more_act_bits(calibration), "weights": _more_edge_bits(edge_bits), "stream": _wide}
    costs = [_cost(c, e, remedies[c.kind], classifies) for c, e in zip(changes, found, strict=True)]
    return tuple(sorted(costs, key=_badness))


def _badness(cost: Cost) -> tuple[float, float]:
    """Ascending: fewest predictions kept, then most noise in the network's outputs."""
    agreement = 100.0 if cost.agreement is None else cost.agreement
    return agreement, np.inf if cost.output_db is None else cost.output_db


def _cost(change: Change, effect: Effect, remedy: Callable[[Change], str], classifies: bool) -> Cost:
    at_layer, at_output = effect.sqnr_db(), effect.output_db()
    harmless = effect.same == effect.images and (at_output is None or at_output >= HARMLESS_DB)
    return Cost(
        change.kind,
        change.name,
        change.bits,
        None if at_layer is None else round(at_layer, 2),
        None if at_output is None else round(at_output, 2),
        round(100 * effect.same / effect.images, 2) if classifies else None,
        "" if harmless else remedy(change),
    )


def _more_act_bits(calibration: Calibration) -> Callable[[Change], str]:
    method = "" if calibration.method == "output" else "method output"

    def remedy(change: Change) -> str:
        return f"--act-bits {change.bits + 1}" if change.bits < 8 else method

    return remedy


def _more_edge_bits(edge_bits: int | None) -> Callable[[Change], str]:
    more = "" if edge_bits is None else "--edge-bits 16" if edge_bits < 16 else "--edge-bits max"
    return lambda change: more


def _wide(change: Change) -> str:
    return "--stream-bits 32"


def _weight_changes(graph: Graph, real: Graph) -> list[Change]:
    found = []
    for node in graph.nodes:
        if isinstance(node.op, Conv2d | Linear) and not node.op.weight.is_quantized:
            bits, weight = _fitted_weight(graph, node, real)
            found.append(Change("weights", node.name, bits, {node.name: replace(node.op, weight=weight).evaluate}))
    return found


def _fitted_weight(graph: Graph, node: Node, real: Graph) -> tuple[int, Weight]:
    """Bits, and float values, of the levels a float layer got; without the gain of an affine moved behind it."""
    product = f"{node.name}.product"
    moved = product in real.types
    op = real.node(product if moved else node.name).op
    assert isinstance(op, Conv2d | Linear)
    values = op.weight.real()
    if moved:
        affine = graph.node(node.inputs[0]).op
        assert isinstance(affine, Affine)
        values = values / spread_over_groups(affine.floats()[0], values)
    return op.weight.bits, Weight(values)


def _stream_changes(graph: Graph, streams: dict[str, Stream]) -> list[Change]:
    narrow = {name: stream for name, stream in streams.items() if stream.bits == NARROW_BITS}
    return [Change("stream", name, s.bits, {name: _narrow_sum(s)}) for name, s in narrow.items()]


def _narrow_sum(stream: Stream) -> Callable[..., NDArray[np.float64]]:
    """Both operands and their sum as saturating multiples of the stream's step."""
    step, top = float(stream.step), 2 ** (stream.bits - 1) - 1

    def fixed(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.clip(np.floor(x / step + 0.5), -top - 1, top)

    return lambda a, b: step * np.clip(fixed(a) + fixed(b), -top - 1, top)

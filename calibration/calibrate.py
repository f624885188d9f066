"""Which tensors need a range, and where it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qexport.calibration.observers import Extremes
from qexport.calibration.ranges import DEFAULT_PERCENTILE, Images, Method, Range, make_observer, observe
from qexport.calibration.statistics import ranges_from_statistics
from qexport.errors import DataError
from qexport.ir import Graph
from qexport.ops import Add, Conv2d
from qexport.passes.layers import needs_range

if TYPE_CHECKING:
    from qexport.capture.capture import Captured

DEFAULT_METHOD: Method = "percentile"
"""With `DEFAULT_PERCENTILE`, chosen by docs/decisions/003-activation-ranges.md."""


def calibrate(
    captured: Captured,
    images: Images | None = None,
    *,
    method: Method = DEFAULT_METHOD,
    percentile: float = DEFAULT_PERCENTILE,
    streams: bool = False,
) -> dict[str, Range]:
    """Ranges for `LayerOptions.ranges` and, with `streams`, for `lower`: real tensor -> (lo, hi).

    With images: `method` decides for the inputs of layers, where a clipped outlier buys a finer step. Without images:
    estimates from batch norm for the inputs of layers.

    Args:
        captured: captured network.
        images: a data set, an array uint8 [N, C, H, W], or batches of such arrays; None for no data.
        method, percentile: see `measure_ranges`.
        streams: also measure what residual streams carry, always by its extremes, so that `lower` may narrow them to
            16 bits; without images this adds nothing, for a stream must not saturate at an estimate.

    Raises:
        DataError: the images do not fit, or without images a layer's input has a range that batch norm does not give.
        OptionError: unknown method, percentile out of range.
    """
    inputs = layer_inputs(captured.graph)
    if images is None:
        return _without_data(captured, inputs)
    make = make_observer(method, percentile)
    observers: dict[str, Extremes] = {}
    if streams:
        observers = {name: Extremes() for name in stream_tensors(captured.graph)}
    observers |= {name: make() for name in inputs}
    observe(captured.graph, observers, images)
    return {name: _never_empty(observer.span()) for name, observer in observers.items()}


def _never_empty(span: Range) -> Range:
    """A quantizer needs a step: an activation that was zero on every image gets the range of a unit."""
    return (0.0, 1.0) if span == (0.0, 0.0) else span


def layer_inputs(graph: Graph) -> list[str]:
    """Float tensors a layer can only read through a quantizer: those of low-bit layers, and of any convolution."""
    low_bit = needs_range(graph)
    convolved = {node.inputs[0] for node in graph.find(Conv2d)}
    return [name for name, is_low_bit in low_bit.items() if is_low_bit or name in convolved]


def stream_tensors(graph: Graph) -> list[str]:
    """Sums and their operands, in graph order."""
    wanted = {tensor for node in graph.find(Add) for tensor in (node.name, *node.inputs)}
    return [name for name in graph.types if name in wanted]


def _without_data(captured: Captured, inputs: list[str]) -> dict[str, Range]:
    known = ranges_from_statistics(captured.graph, captured.statistics)
    unknown = [name for name in inputs if name not in known]
    if unknown:
        raise DataError(
            "the network's float activations have no range that batch norm would give",
            where=unknown[0],
            got=f"{len(unknown)} such activations: {', '.join(unknown[:8])}{' ...' if len(unknown) > 8 else ''}",
            expected="a batch norm between every layer and the next",
            remedy="give a few hundred images with --calibration-data",
        )
    return {name: known[name] for name in inputs}

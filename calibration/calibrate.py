"""Which tensors need a range, and where it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from qexport.calibration.allocation import allocate_bits, check_budget
from qexport.calibration.calibration import Calibration
from qexport.calibration.data import open_images
from qexport.calibration.methods import DEFAULT_METHOD, DEFAULT_PERCENTILE, Method, find_method
from qexport.calibration.observers import Extremes, Histogram, Range
from qexport.calibration.output_error import refine_on_outputs
from qexport.calibration.ranges import observe
from qexport.calibration.statistics import deviations_for, ranges_from_statistics
from qexport.errors import DataError, OptionError
from qexport.ir import Graph
from qexport.ops import Add, Conv2d
from qexport.passes.layers import DEFAULT_ACT_BITS, needs_range

if TYPE_CHECKING:
    from qexport.capture.capture import Captured

PROBE_IMAGES = 64
"""Images on which the automatic mode measures what each activation does to the output."""


def calibrate(
    captured: Captured,
    images: Any = None,
    *,
    method: str = DEFAULT_METHOD,
    percentile: float = DEFAULT_PERCENTILE,
    bits: int = DEFAULT_ACT_BITS,
    act_budget: float | None = None,
    streams: bool = False,
    limit: int | None = None,
) -> Calibration:
    """Ranges for `LayerOptions.ranges` and, with `streams`, for `lower`.

    With images: `method` decides for the inputs of layers, where a clipped outlier buys a finer step. Without images:
    estimates from batch norm for the inputs of layers.

    Args:
        captured: captured network.
        images: see `open_images`; None for no data.
        method, percentile: see `find_method`.
        bits: of the quantizers the ranges are for.
        act_budget: mean bits; every quantizer then gets its own, see `allocate_bits`. Reads some images once more.
        streams: also measure what residual streams carry, always by its extremes, so that `lower` may narrow them to
            16 bits; without images this adds nothing, for a stream must not saturate at an estimate.
        limit: use at most so many images.

    Raises:
        DataError: the images do not fit, or can be read once and are needed twice; or without images a layer's input
            has a range that batch norm does not give.
        OptionError: unknown method, percentile or budget out of range, a budget without images or histograms.
    """
    chosen = find_method(method, percentile)
    _check_budget(chosen, method, act_budget, images)
    inputs = layer_inputs(captured.graph)
    if images is None:
        ranges = _without_data(captured, inputs, bits)
        _check_bits(ranges, bits)
        return Calibration(ranges, {}, bits)
    source = open_images(images, captured.graph, limit=limit)
    if (chosen.second_pass or act_budget is not None) and not source.replayable:
        raise _read_once(method if chosen.second_pass else "--act-budget")
    stream_names = stream_tensors(captured.graph) if streams else []
    observers = {name: chosen.observer() for name in inputs}
    of_streams = {name: Extremes() for name in stream_names if name not in observers}
    n_images = observe(captured.graph, observers | of_streams, source)
    _check_bits({name: observer.span() for name, observer in observers.items()}, bits)
    bits_of = dict.fromkeys(inputs, bits)
    if act_budget is not None:
        probe = open_images(images, captured.graph, limit=min(n_images, PROBE_IMAGES))
        histograms = cast(dict[str, Histogram], observers)
        bits_of = allocate_bits(captured.graph, histograms, chosen.choose, act_budget, probe)
    ranges = {name: _never_empty(chosen.choose(observer, bits_of[name])) for name, observer in observers.items()}
    if chosen.second_pass:
        spans = {name: observer.span() for name, observer in observers.items()}
        ranges = refine_on_outputs(captured.graph, spans, ranges, bits_of, source)
    extremes = {name: (observers | of_streams)[name].span() for name in stream_names}
    others = {name: width for name, width in bits_of.items() if width != bits}
    return Calibration(ranges, extremes, bits, others, method, n_images)


def _check_budget(method: Method, name: str, act_budget: float | None, images: Any) -> None:
    if act_budget is None:
        return
    check_budget(act_budget)
    if images is None:
        raise OptionError(
            "bits of activations cannot be distributed without images",
            where="--act-budget",
            remedy="give a few hundred images with --calibration-data",
        )
    if method.observer is not Histogram:
        raise OptionError(
            "the method keeps no histogram, from which the error of each width follows",
            where="--act-budget",
            got=f"method {name}",
            expected="percentile, entropy, mse or output",
        )


def _check_bits(spans: dict[str, Range], bits: int) -> None:
    """One bit tells two levels apart, and a quantizer with a zero and both signs has three."""
    signed = [name for name, (lo, _) in spans.items() if lo < 0]
    if bits < 2 and signed:
        raise OptionError(
            "an activation with negative values needs 2 bits or more",
            where=signed[0],
            got=f"{bits} bit",
            remedy="give more --act-bits",
        )


def _read_once(why: str) -> DataError:
    return DataError(
        "the images can be read only once",
        got=f"an iterator, and {why} reads them twice",
        expected="a path, an array, a list, a DataLoader, or a reader with rewind()",
        remedy=f"put the images into a list, or use method {DEFAULT_METHOD} and the same bits everywhere",
    )


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


def _without_data(captured: Captured, inputs: list[str], bits: int) -> dict[str, Range]:
    known = ranges_from_statistics(captured.graph, captured.statistics, deviations_for(bits))
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

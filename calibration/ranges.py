"""Ranges of real tensors, measured by running the captured network on images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from qexport.calibration.observers import Extremes, Histogram
from qexport.datasets import Dataset
from qexport.errors import DataError, GraphError, OptionError
from qexport.ir import Graph, prune
from qexport.reference import interpret

Range = tuple[float, float]
Method = Literal["max", "percentile"]
Images = Dataset | NDArray[np.uint8] | Iterable[NDArray[np.uint8]]

DEFAULT_PERCENTILE = 99.999
"""One value in a hundred thousand is clipped (docs/decisions/003-activation-ranges.md)."""


def measure_ranges(
    graph: Graph,
    tensors: Iterable[str],
    images: Images,
    method: Method = "max",
    percentile: float = DEFAULT_PERCENTILE,
) -> dict[str, Range]:
    """Run the real graph on images and return (lo, hi) of every asked tensor.

    Memory is that of one image, whatever their number. Images are evaluated one by one, because the rounding of a
    matrix product depends on what else is in its batch: so the result depends on no order and no batch size.

    Args:
        graph: real graph with one input, pixels 0..255.
        tensors: names of real tensors.
        images: a data set, an array uint8 [N, C, H, W], or batches of such arrays.
        method: "max" takes the extremes; "percentile" what `percentile` percent of all values stay below, and above,
            to within 2**-8 of the value (percentile 100 is "max").
        percentile: in (50, 100].

    Raises:
        DataError: no images, wrong shape or type, or an activation that is not finite.
        OptionError: unknown method, percentile out of range.
        GraphError: a tensor the graph does not have.
    """
    make = make_observer(method, percentile)
    observers = {name: make() for name in tensors}
    observe(graph, observers, images)
    return {name: observer.span() for name, observer in observers.items()}


def observe(graph: Graph, observers: Mapping[str, Extremes], images: Images) -> None:
    """Show every observer its tensor, for each image in turn; see `measure_ranges`."""
    missing = [name for name in observers if name not in graph.types]
    if missing:
        raise GraphError("no such tensor to measure", got=missing)
    part = prune(Graph(graph.inputs, graph.nodes, list(observers), graph.types))
    (input_name,) = graph.inputs
    n_images = 0
    for image in _one_by_one(images, graph.inputs[input_name].shape):
        run = interpret(part, {input_name: image})
        for name, observer in observers.items():
            _observe(observer, name, run.outputs[name], n_images)
        n_images += 1
    if not n_images:
        raise DataError("there are no calibration images", expected="1 or more", remedy="check --calibration-data")


def make_observer(method: str, percentile: float) -> Callable[[], Extremes]:
    """What makes the observers of a method.

    Raises:
        OptionError: unknown method, percentile out of range.
    """
    if method == "max":
        return Extremes
    if method != "percentile":
        raise OptionError("unknown calibration method", got=method, expected="max or percentile")
    if not 50 < percentile <= 100:
        raise OptionError(
            "the percentile is out of range",
            got=percentile,
            expected="above 50 and at most 100",
            remedy=f"{DEFAULT_PERCENTILE} clips one value in a hundred thousand",
        )
    return lambda: Histogram(percentile)


def _observe(observer: Extremes, name: str, values: NDArray[np.float64], index: int) -> None:
    if not np.isfinite(values).all():
        raise DataError(
            "an activation is not finite",
            where=name,
            got=f"{values[~np.isfinite(values)][0]} for image {index}",
            remedy="check that checkpoint, --mean and --std belong together",
        )
    observer.update(values)


def _one_by_one(images: Images, shape: tuple[int, ...]) -> Iterator[NDArray[np.uint8]]:
    """Every image as [1, C, H, W], with a progress bar on a terminal if it takes longer than two seconds."""
    if isinstance(images, Dataset):
        batches, total = images.batches(), len(images)
    elif isinstance(images, np.ndarray):
        batches, total = iter([images]), len(images)
    else:
        batches, total = iter(images), None
    with tqdm(total=total, desc="calibrating", unit=" images", delay=2, disable=None, leave=False) as bar:
        for batch in batches:
            _check_batch(batch, shape)
            for i in range(len(batch)):
                yield batch[i : i + 1]
                bar.update()


def _check_batch(batch: NDArray, shape: tuple[int, ...]) -> None:
    if batch.dtype != np.uint8 or batch.shape[1:] != shape:
        raise DataError(
            "calibration images do not fit the network",
            got=f"{batch.dtype} of shape {batch.shape}",
            expected=f"uint8 of shape {('n', *shape)}",
            remedy="give the pixels before normalisation, resized as in training",
        )

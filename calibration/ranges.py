"""Ranges of real tensors, measured by running the captured network on images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from qexport.calibration.data import Images, Pixels, open_images
from qexport.calibration.methods import DEFAULT_PERCENTILE, find_method
from qexport.calibration.observers import Extremes, Range
from qexport.errors import DataError, GraphError
from qexport.ir import Graph, prune
from qexport.reference import interpret


def measure_ranges(
    graph: Graph,
    tensors: Iterable[str],
    images: Any,
    method: str = "max",
    percentile: float = DEFAULT_PERCENTILE,
    bits: int = 8,
) -> dict[str, Range]:
    """Run the real graph on images and return (lo, hi) of every asked tensor.

    Memory is that of one image and one histogram a tensor, whatever their number. Images are evaluated one by one,
    because the rounding of a matrix product depends on what else is in its batch: so the result depends on no order
    and no batch size.

    Args:
        graph: real graph with one input, pixels 0..255.
        tensors: names of real tensors.
        images: see `open_images`.
        method: see `METHOD_NAMES`; of "output" the first pass only.
        percentile: for "percentile", in (50, 100]: what so many percent of all values stay below, and above, to within
            2**-8 of the value (100 is "max").
        bits: of the quantizer the range is for.

    Raises:
        DataError: no images, wrong shape or type, or an activation that is not finite.
        OptionError: unknown method, percentile out of range.
        GraphError: a tensor the graph does not have.
    """
    chosen = find_method(method, percentile)
    observers = {name: chosen.observer() for name in tensors}
    observe(graph, observers, open_images(images, graph))
    return {name: chosen.choose(observer, bits) for name, observer in observers.items()}


def observe(graph: Graph, observers: Mapping[str, Extremes], images: Images) -> int:
    """Show every observer its tensor, for each image in turn; see `measure_ranges`. Returns the number of images."""
    missing = [name for name in observers if name not in graph.types]
    if missing:
        raise GraphError("no such tensor to measure", got=missing)
    part = prune(Graph(graph.inputs, graph.nodes, list(observers), graph.types))

    def show(index: int, image: Pixels) -> None:
        run = interpret(part, {next(iter(graph.inputs)): image})
        for name, observer in observers.items():
            observer.update(_finite(run.outputs[name], name, index))

    return each_image(images, "calibrating", show)


def each_image(images: Images, stage: str, visit: Callable[[int, Pixels], None]) -> int:
    """Call `visit(index, uint8 [1, C, H, W])` for every image and count them; a progress bar shows on a terminal.

    Raises:
        DataError: there are none.
    """
    n_images = 0
    for image in _with_bar(images, stage):
        visit(n_images, image)
        n_images += 1
    if not n_images:
        raise DataError(
            "there are no calibration images", expected="1 or more", remedy="check where they should come from"
        )
    return n_images


def _with_bar(images: Images, stage: str) -> Iterator[Pixels]:
    """With a progress bar on a terminal if it takes longer than two seconds."""
    with tqdm(total=images.total, desc=stage, unit=" images", delay=2, disable=None, leave=False) as bar:
        for image in images:
            yield image
            bar.update()


def _finite(values: NDArray[np.float64], name: str, index: int) -> NDArray[np.float64]:
    if not np.isfinite(values).all():
        raise DataError(
            "an activation is not finite",
            where=name,
            got=f"{values[~np.isfinite(values)][0]} for image {index}",
            remedy="check that checkpoint, --mean and --std belong together",
        )
    return values

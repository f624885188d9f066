"""The integer graphs of tests/networks, which every backend is tested with."""

from __future__ import annotations

import zlib
from functools import cache

import numpy as np
from agreement import images
from networks import CASES
from numpy.typing import NDArray

from qexport.capture import capture
from qexport.passes.layers import LayerOptions, needs_range, quantize_layers
from qexport.passes.lower import Lowered, lower
from qexport.reference import interpret


@cache
def lowered_case(name: str, random_images: int = 13) -> tuple[Lowered, NDArray[np.uint8]]:
    """A network of the table, lowered, and images for it: 3 corners and random ones. Made once; leave it as it is."""
    case = CASES[name]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    found = capture(case.build(rng).eval(), case.shape, case.mean, case.std)
    x = images(case.shape, rng, random_images)
    wanted = needs_range(found.graph) if case.calibrate else {}
    run = interpret(found.graph, {"image": x}, keep=wanted)
    ranges = {t: (float(run.tensors[t].min()), float(run.tensors[t].max())) for t in wanted}
    low = lower(quantize_layers(found.graph, LayerOptions(edge_bits=case.edge_bits, ranges=ranges)))
    return low, x.astype(np.uint8)

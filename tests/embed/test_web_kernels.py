"""The SIMD128 kernels under Node.js: each element of each tensor equals the reference's, and each kernel is forced."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from embedded_program import HERE, run
from lowering import lowered_case
from networks import CASES
from operator_graphs import OPERATOR_GRAPHS, operator_graph
from packed_networks import levels, pixels
from runtime_program import record
from web_program import node

from qexport.ir import Graph
from qexport.ops import Conv2d, Threshold, Weight

BUILD = HERE.parents[1] / "runtime" / "wasm" / "build.py"
QUICK_NETWORKS = {"linear-stack"}
QUICK_OPERATORS = 16


def load_build() -> ModuleType:
    """runtime/wasm/build.py as a module; skips without the compiler."""
    pytest.importorskip("ziglang", reason="the compiler (ziglang) is not installed")
    specification = importlib.util.spec_from_file_location("wasm_build", BUILD)
    assert specification is not None and specification.loader is not None
    found = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the runtime's test programs for WASI."""
    node()
    folder = tmp_path_factory.mktemp("programs")
    load_build().build_programs(folder)
    return folder


def run_wasi(program: Path, folder: Path, *arguments: str) -> str:
    done = run([node(), "--no-warnings", HERE / "run_wasi.mjs", program, folder, *arguments])
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return done.stdout.decode()


def check(programs: Path, folder: Path, graph: Graph, feeds: dict[str, np.ndarray]) -> list[str]:
    """Replay on every instruction set, tile by tile; returns the kernels of the convolutions."""
    file, samples = record(graph, feeds)
    (folder / "model.qpk").write_bytes(file)
    (folder / "samples.raw").write_bytes(samples)
    found = run_wasi(programs / "replay.wasm", folder, "model.qpk", "samples.raw")
    assert found.split("\n") == ["scalar ok", "simd128 ok", ""]
    return run_wasi(programs / "kernel_names.wasm", folder, "model.qpk").split("\n")[:-1]


def marked(names: list[str], quick: set[str]) -> list:
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", marked(list(CASES), QUICK_NETWORKS))
def test_networks(programs: Path, name: str, tmp_path: Path) -> None:
    low, images = lowered_case(name, 1)
    check(programs, tmp_path, low.graph, {"image": images})


@pytest.mark.parametrize("name", marked(list(OPERATOR_GRAPHS), set(list(OPERATOR_GRAPHS)[::QUICK_OPERATORS])))
def test_operators(programs: Path, name: str, tmp_path: Path) -> None:
    graph, images = operator_graph(name)
    check(programs, tmp_path, graph, {"image": images})


SAME = ((1, 1), (1, 1))
PAIRED, UNEVEN = (-1, 1), (-2, 5)
TERNARY, FOUR = (-1, 0, 1), (-3, -1, 1, 3)

# kernel, levels of the weights, levels of the codes, input channels, output channels, options of the convolution
LAYERS: dict[str, tuple] = {
    "bits": ("bits", PAIRED, (0, 1), 16, 16, {"pads": SAME}),
    "bits, wide values": ("bits", (-900, 900), (0, 1), 8, 5, {"pads": SAME}),
    "bits, codes below zero": ("bits", PAIRED, (-1, 0), 16, 32, {"pads": SAME}),
    "bits, odd channels": ("bits", PAIRED, (0, 1), 11, 19, {"pads": ((2, 0), (1, 3))}),
    "bits, strided": ("bits", PAIRED, (0, 1), 24, 16, {"pads": SAME, "stride": (2, 3)}),
    "bits, dilated": ("bits", PAIRED, (0, 1), 8, 16, {"pads": ((2, 2), (3, 3)), "dilation": (2, 3)}),
    "bits, more counts than a byte holds": ("bits", PAIRED, (0, 1), 72, 17, {"pads": SAME}),
    "bits, pointwise": ("bits", PAIRED, (0, 1), 40, 16, {}),
    "two levels, two bits": ("table", PAIRED, (0, 1, 2, 3), 16, 16, {"pads": SAME}),
    "two levels, signs": ("table", PAIRED, (-1, 1), 18, 20, {"pads": SAME}),
    "two levels, one bit, uneven": ("table", UNEVEN, (0, 1), 13, 16, {"pads": SAME, "stride": (2, 1)}),
    "one bit, equal weights": ("table", (3,), (0, 1), 8, 16, {"pads": SAME}),
    "ternary, one bit": ("table", TERNARY, (0, 1), 17, 16, {"pads": ((0, 2), (1, 0))}),
    "ternary, two bits": ("table", TERNARY, (0, 1, 2, 3), 32, 33, {"pads": SAME}),
    "four levels, two bits": ("table", FOUR, (0, 1, 2, 3), 16, 16, {"pads": SAME, "dilation": (1, 2)}),
    "four levels, signed codes": ("table", FOUR, (-3, -1, 1, 3), 10, 16, {"pads": SAME}),
    "four levels, four bits": ("table", (-1, 0, 1, 2), tuple(range(11)), 7, 16, {"pads": SAME}),
    "sums leave 16 bits": ("table", (8, 10), (0, 1), 1600, 4, {"pads": ((0, 0), (0, 0))}),
    "depthwise": ("depthwise", (-5, 3, 9), tuple(range(30)), 21, 21, {"pads": SAME, "groups": 21}),
    "depthwise, even taps": ("depthwise", (-5, 3, 9), (-2, 0, 7), 16, 16, {"groups": 16, "dilation": (1, 2)}),
    "groups": ("i16", PAIRED, (0, 1), 16, 16, {"pads": SAME, "groups": 2}),
    "seven levels": ("i16", (-4, -2, -1, 0, 1, 2, 4), (0, 1, 2, 3), 16, 16, {"pads": SAME}),
    "large codes": ("i16", TERNARY, tuple(range(17)), 16, 16, {"pads": SAME}),
}
QUICK_LAYERS = {
    "bits, odd channels",
    "two levels, signs",
    "ternary, two bits",
    "sums leave 16 bits",
    "groups",
    "depthwise",
}


def layer_graph(name: str) -> Graph:
    """A stem, codes, and the layer."""
    _, weights, codes, channels, outputs, options = LAYERS[name]
    rng = np.random.default_rng(len(name))
    g = pixels(2, 7, 9) if channels < 1000 else pixels(2, 3, 3)
    stem = rng.integers(-90, 91, (channels, 2, 1, 1)).astype(np.int32)
    g.add("stem", Conv2d(Weight(stem, edge_bits=8)), "image")
    steps = np.sort(rng.integers(-20000, 20000, (channels, len(codes) - 1)), axis=1)
    sign = rng.choice(np.array([-1, 1], np.int8), channels)
    g.add("codes", Threshold(steps, sign, np.array(codes, np.int32)), "stem")
    window = 1 if not options else 2 if name.endswith("even taps") else 3
    inputs = channels // options.get("groups", 1)
    g.add("layer", Conv2d(levels(rng, weights, outputs, inputs, window, window), **options), "codes")
    g.outputs = ["layer"]
    return g


@pytest.mark.parametrize("name", marked(list(LAYERS), QUICK_LAYERS))
def test_layers_of_codes(programs: Path, name: str, tmp_path: Path) -> None:
    graph = layer_graph(name)
    ((_, image),) = graph.inputs.items()
    feeds = {"image": np.random.default_rng(4).integers(0, 256, (2, *image.shape)).astype(np.uint8)}
    assert check(programs, tmp_path, graph, feeds)[-1] == f"simd128 {LAYERS[name][0]}"

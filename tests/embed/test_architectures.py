"""Whole architectures as C: the network of the demo, one with depthwise convolutions, a detector with two outputs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from embedded_program import (
    CORTEX_M,
    HERE,
    HERE_BY_COMPILER,
    LINUX,
    Target,
    build,
    expected_outputs,
    replay,
    self_check,
    undefined_symbols,
)

from qexport.backends.packed.reader import read_packed
from qexport.checkpoints import save_native
from qexport.conversion import convert
from qexport.embed import embed
from qexport.models.papers import PAIRS, SMALL_INPUTS
from qexport.models.registry import architecture
from qexport.models.seeded import random_images, seeded

DEMO = HERE.parents[1] / "models" / "checkpoints" / "digits_w2a2.pt"
PROCESSORS = {**HERE_BY_COMPILER, **LINUX}
SANITIZERS = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


QUICK = {"gcc", "aarch64", "armv7", "s390x", "cortex-m3", "cortex-m4", "cortex-m55"}
"""Processors of the short test run."""


def marked(processors: Iterable[str]) -> list:
    return [p if p in QUICK else pytest.param(p, marks=pytest.mark.slow) for p in processors]


def check(model: Path, folder: Path, target: Target) -> None:
    """Three random images give equal outputs."""
    flags = SANITIZERS if target in HERE_BY_COMPILER.values() else ("-O2",)
    values, graph = embed(model, folder), read_packed(model).to_graph()
    rng = np.random.default_rng(8)
    feeds = {name: rng.integers(0, 256, (3, *t.shape)) for name, t in graph.inputs.items()}
    program = build(target, folder, ["model.c", HERE / "replay.c"], *flags)
    found = replay(target, program, list(feeds.values()), values["output_size"])
    expected = expected_outputs(graph, feeds)
    assert np.array_equal(found, expected) and expected.any()


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    return convert(DEMO, folder, bits=2, formats=("qpk",)).files["qpk"]


@pytest.mark.parametrize("processor", marked(PROCESSORS))
def test_demo(processor: str, demo: Path, tmp_path: Path) -> None:
    check(demo, tmp_path, PROCESSORS[processor])


@pytest.mark.parametrize("processor", marked(CORTEX_M))
def test_demo_on_cortex_m(processor: str, demo: Path, tmp_path: Path) -> None:
    embed(demo, tmp_path)
    assert "self-check passed" in self_check(CORTEX_M[processor], tmp_path, "-Os")


@pytest.fixture(scope="session", params=["mobilenet_v2", "ssd_small"])
def seeded_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeded weights of 2 bits: nothing is trained, but codes of every value occur."""
    folder, chosen, small = tmp_path_factory.mktemp("seeded"), PAIRS["daq-w2a2"], SMALL_INPUTS[request.param]
    arch, shape, arguments = (
        f"{chosen.scheme}-{request.param}",
        small.input_shape,
        {**small.arguments, **chosen.arguments},
    )
    data = architecture(arch).preprocessing
    model = seeded(arch, input_shape=shape, **arguments)
    checkpoint = folder / "seeded.pt"
    save_native(checkpoint, model, arch=arch, arguments=arguments, input_shape=shape, mean=data.mean, std=data.std)
    images = random_images(shape, 4).numpy()
    return convert(checkpoint, folder, formats=("qpk",), calibration_data=images).files["qpk"]


@pytest.mark.slow
@pytest.mark.parametrize("processor", PROCESSORS)
def test_seeded_networks(processor: str, seeded_model: Path, tmp_path: Path) -> None:
    check(seeded_model, tmp_path, PROCESSORS[processor])


@pytest.mark.slow
@pytest.mark.parametrize("processor", CORTEX_M)
def test_seeded_networks_on_cortex_m(processor: str, seeded_model: Path, tmp_path: Path) -> None:
    embed(seeded_model, tmp_path)
    assert "self-check passed" in self_check(CORTEX_M[processor], tmp_path, "-Os")


@pytest.mark.slow
@pytest.mark.parametrize("compiler", HERE_BY_COMPILER)
def test_no_writable_data_and_no_library(compiler: str, seeded_model: Path, tmp_path: Path) -> None:
    embed(seeded_model, tmp_path)
    assert undefined_symbols(HERE_BY_COMPILER[compiler], tmp_path / "model.c") <= {"memcpy", "memset"}

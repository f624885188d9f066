"""The integer network agrees with the quantized real one within its claimed bounds, over every supported feature."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from agreement import check_agreement, images
from networks import CASES, Case

from qexport.capture import Captured, capture
from qexport.ir import Graph, verify
from qexport.ops import BorderBias, Conv2d, Linear, Step
from qexport.passes.layers import LayerOptions, needs_range, quantize_layers
from qexport.passes.lower import Lowered, lower
from qexport.reference import interpret

torch.set_num_threads(1)


def captured(name: str) -> tuple[Case, torch.nn.Module, Captured, np.random.Generator]:
    case = CASES[name]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    module = case.build(rng).eval()
    return case, module, capture(module, case.shape, case.mean, case.std), rng


def _check_layers(case: Case, found: Captured, real: Graph, x: np.ndarray) -> None:
    """For equal codes the quantized graph gives the captured graph's values: what quantizing a layer may change.

    Nothing but float64 rounding and the border correction's 2^-13 steps where no layer was float.
    """
    steps = {n.name for n in found.graph.nodes if isinstance(n.op, Step)}
    before = interpret(found.graph, {"image": x}, keep=["*"]).tensors
    forced = interpret(real, {"image": x}, keep=["*"], override=lambda n, v: before[n] if n in steps else v).tensors
    tolerance = 5e-4 if not case.float_layers and not case.calibrate else 0.03
    for name in steps | set(found.graph.outputs):
        at = next((n.inputs[0] for n in found.graph.nodes if n.name in steps and n.name == name), name)
        off = float(np.abs(forced[at] - before[at]).max())
        assert off <= tolerance * float(np.abs(before[at]).max()), f"{at}: {off}"


def lowered(case: Case, found: Captured, x: np.ndarray) -> Lowered:
    ranges = {}
    if case.calibrate:
        wanted = needs_range(found.graph)
        assert wanted
        run = interpret(found.graph, {"image": x}, keep=wanted)
        ranges = {t: (float(v.min()), float(v.max())) for t, v in run.tensors.items()}
    real = quantize_layers(found.graph, LayerOptions(edge_bits=case.edge_bits, ranges=ranges))
    _check_layers(case, found, real, x)
    return lower(real)


def _normalized(case: Case, x: np.ndarray) -> torch.Tensor:
    shape = (-1, *(1,) * (len(case.shape) - 1))
    mean, std = (torch.tensor(v or d).reshape(shape) for v, d in ((case.mean, (0.0,)), (case.std, (1.0,))))
    return (torch.tensor(x, dtype=torch.float32) / 255 - mean) / std


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    """Captured graph ~ torch; integer graph within the claimed bounds of the real one, exact where it says so."""
    case, module, found, rng = captured(name)
    x = images(case.shape, rng)
    _check_against_torch(case, module, found, x)
    layers = [n.op for n in found.graph.nodes if isinstance(n.op, Conv2d | Linear)]
    assert sum(not op.weight.is_quantized for op in layers) == case.float_layers

    low = lowered(case, found, x)
    verify(low.graph, require_integer=True)
    seen = check_agreement(low, x)
    assert low.folds == {} or seen.codes > 0
    if case.exact:
        assert {f.name: f.error for f in low.folds.values()} == dict.fromkeys(low.folds, 0.0)
        assert [unit.error for unit in low.outputs] == [0.0] * len(low.outputs)
    if case.ties:
        assert seen.ties > 20
        assert seen.differing == 0


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("lsq-plus")])
def test_offset_quantizers_need_the_border(name: str) -> None:
    """The matrix would be silent about the border correction if these offsets dissolved into levels."""
    case, _, found, rng = captured(name)
    low = lowered(case, found, images(case.shape, rng))
    assert any(isinstance(node.op, BorderBias) for node in low.graph.nodes)


def _check_against_torch(case: Case, module: torch.nn.Module, found: Captured, x: np.ndarray) -> None:
    """Tolerance 1e-4 of the output's range, but a code may flip where float32 rounding crosses a threshold."""
    with torch.no_grad():
        expected = module(_normalized(case, x))
    outputs = expected if isinstance(expected, tuple) else (expected,)
    run = interpret(found.graph, {"image": x})
    for tensor, name in zip(outputs, found.graph.outputs, strict=True):
        wanted, got = tensor.numpy(), run.outputs[name]
        scale = max(1e-3, float(np.abs(wanted).max()))
        samples_off = (np.abs(wanted - got) > 1e-4 * scale).reshape(len(x), -1).any(1)
        assert samples_off.mean() < 0.5, f"{name}: {samples_off.sum()} of {len(x)} samples off"

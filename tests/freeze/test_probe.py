"""Probing quantizers the library has never seen, and its own, gives the function itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from qexport.freeze.probe import probe
from qexport.freeze.scalar_module import evaluation_mode, single_thread
from qexport.models.quantizers import DAQActivationQuantizer, QNQuantizer
from qexport.stepfunction import StepFunction

SHAPE = (2, 7, 5, 5)
"""No whole vectors: 350 elements leave some to scalar code."""
INFINITY = np.float32(np.inf)


class Elementwise(nn.Module):
    """Any function of a tensor as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class LSQ(nn.Module):
    """Learned step size, with the straight-through form its public code leaves in the evaluation forward."""

    def __init__(self, scale: float, lowest: int, highest: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([[scale]]))
        self.lowest, self.highest = lowest, highest

    def forward(self, x: Tensor) -> Tensor:
        v = torch.clamp(x / self.scale, self.lowest, self.highest)
        return ((v.round() - v).detach() + v) * self.scale


class Pact(nn.Module):
    def __init__(self, alpha: float, bits: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(alpha))
        self.n_steps = 2**bits - 1

    def forward(self, x: Tensor) -> Tensor:
        clipped = torch.minimum(torch.relu(x), self.alpha)
        return torch.round(clipped * self.n_steps / self.alpha) * self.alpha / self.n_steps


class Steps(nn.Module):
    """Arbitrary thresholds and values; compared with > where `strict`, else with >=."""

    def __init__(self, thresholds: list[float], values: list[float], *, strict: bool = False) -> None:
        super().__init__()
        self.register_buffer("thresholds", torch.tensor(thresholds))
        self.register_buffer("values", torch.tensor(values))
        self.strict = strict

    def forward(self, x: Tensor) -> Tensor:
        above = x[..., None] > self.thresholds if self.strict else x[..., None] >= self.thresholds
        return self.values[above.sum(-1)]


class StepsByAdding(nn.Module):
    """The same with one addition a step, as fast as a real quantizer; values are integers."""

    def __init__(self, thresholds: np.ndarray) -> None:
        super().__init__()
        self.thresholds = thresholds.tolist()

    def forward(self, x: Tensor) -> Tensor:
        return sum(((x >= t).float() for t in self.thresholds), torch.zeros_like(x))


def apot_levels(x: Tensor) -> Tensor:
    """Power-of-two levels with thresholds at their mid-points."""
    levels = torch.tensor([0.0, 0.125, 0.25, 0.5, 1.0])
    return levels[torch.bucketize(x.clamp(0, 1), (levels[1:] + levels[:-1]) / 2)]


def after(x: float) -> np.float32:
    return np.nextafter(np.float32(x), INFINITY)


TINY = float(np.float32(1e-45))
LARGEST = float(np.finfo(np.float32).max)

CASES = {
    "sign has three levels": (Elementwise(torch.sign), [0.0, TINY], [-1, 0, 1]),
    "x >= 0": (Elementwise(lambda x: (x >= 0).float() * 2 - 1), [0.0], [-1, 1]),
    "x > 0": (Elementwise(lambda x: (x > 0).float() * 2 - 1), [TINY], [-1, 1]),
    "x >= -0.0 is x >= 0": (Elementwise(lambda x: (x >= -0.0).float()), [0.0], [0, 1]),
    "strict": (Steps([0.3], [0.0, 1.0], strict=True), [after(0.3)], [0, 1]),
    "not strict": (Steps([0.3], [0.0, 1.0]), [0.3], [0, 1]),
    "half to even": (Elementwise(lambda x: x.clamp(0, 3).round()), [after(0.5), 1.5, after(2.5)], [0, 1, 2, 3]),
    "half up": (Elementwise(lambda x: (x.clamp(0, 3) + 0.5).floor()), [0.49999997, 1.5, 2.5], [0, 1, 2, 3]),
    "falling": (Elementwise(lambda x: -x.clamp(0, 2).round()), [after(0.5), 1.5], [0, -1, -2]),
    "non-uniform": (
        Elementwise(apot_levels),
        [after(0.0625), after(0.1875), after(0.375), after(0.75)],
        [0, 1, 2, 4, 8],
    ),
    "constant": (Elementwise(lambda x: torch.full_like(x, 0.7)), [], [1]),
    "constant zero": (Elementwise(torch.zeros_like), [], [0]),
    "subnormal threshold": (Elementwise(lambda x: (x > 1e-44).float()), [after(1e-44)], [0, 1]),
    "negative subnormal": (Elementwise(lambda x: (x >= -1e-44).float()), [-1e-44], [0, 1]),
    "two adjacent thresholds": (Steps([0.3, float(after(0.3))], [0.0, 1.0, 2.0]), [0.3, after(0.3)], [0, 1, 2]),
    "at the largest float": (Elementwise(lambda x: (x >= LARGEST).float()), [LARGEST], [0, 1]),
    "at infinity": (Elementwise(lambda x: (x == torch.inf).float()), [np.inf], [0, 1]),
    "above minus infinity": (Elementwise(lambda x: (x > -torch.inf).float()), [-LARGEST], [0, 1]),
    "in place": (Elementwise(lambda x: x.clamp_(0, 1).round_()), [after(0.5)], [0, 1]),
}


@pytest.mark.parametrize("case", CASES)
def test_thresholds_and_levels(case: str) -> None:
    module, thresholds, levels = CASES[case]
    step = probe(module, SHAPE, case)
    assert np.array_equal(step.thresholds, np.array(thresholds, np.float32))
    assert step.levels.tolist() == levels
    assert not np.signbit(step.thresholds[step.thresholds == 0]).any()


FAMILIES = {
    "LSQ signed 4 bits": LSQ(0.137, -8, 7),
    "LSQ signed 8 bits": LSQ(0.0311, -128, 127),
    "LSQ unsigned 8 bits": LSQ(0.0311, 0, 255),
    "LSQ huge scale": LSQ(3e37, -2, 1),
    "LSQ tiny scale": LSQ(1e-42, -2, 1),
    "PACT 4 bits": Pact(2.713, 4),
    "PACT 8 bits": Pact(0.917, 8),
    "through tanh": Elementwise(lambda x: torch.round(torch.tanh(x) * 7) / 7),
    "through sigmoid": Elementwise(lambda x: torch.round(torch.sigmoid(x) * 15) / 15),
    "QN": QNQuantizer([0, 1, 2, 3]),
    "QN +-4": QNQuantizer([-4, -2, -1, 0, 1, 2, 4]),
    "DAQ 1 bit": DAQActivationQuantizer(1),
    "DAQ 8 bits": DAQActivationQuantizer(8),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_module(family: str) -> None:
    module = FAMILIES[family]
    step = probe(module, SHAPE, family)
    assert_equal_near_thresholds(module, step)
    rng = np.random.default_rng(5)
    spread = 2 * np.abs(step.thresholds).max()
    assert_equal(module, step, rng.uniform(-spread, spread, 2**16).astype(np.float32))
    patterns = rng.integers(0, 2**32, 2**18, dtype=np.uint32).view(np.float32)
    assert_equal(module, step, patterns[~np.isnan(patterns)])


def assert_equal_near_thresholds(module: nn.Module, step: StepFunction) -> None:
    below = np.nextafter(step.thresholds, -INFINITY)
    above = np.nextafter(step.thresholds, INFINITY)
    special = np.array([-np.inf, -LARGEST, -TINY, -0.0, 0.0, TINY, LARGEST, np.inf], np.float32)
    assert_equal(module, step, np.concatenate([below, step.thresholds, above, special]))


def assert_equal(module: nn.Module, step: StepFunction, x: np.ndarray) -> None:
    # In whole vectors: the scalar code for what is left over may compute another tanh.
    padded = np.pad(x, (0, -x.size % 64), mode="edge")
    with torch.no_grad(), evaluation_mode(module), single_thread():
        expected = module(torch.from_numpy(padded.copy()).reshape(-1, 1)).flatten().numpy()
    assert np.array_equal(step(padded), expected)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=12, unique=True))
def test_any_thresholds_come_back(thresholds: list[float]) -> None:
    ordered = np.unique(np.array(thresholds, np.float32) + np.float32(0))
    step = probe(StepsByAdding(ordered), SHAPE, "random")
    assert np.array_equal(step.thresholds, ordered)
    assert np.array_equal(step.values, np.arange(ordered.size + 1))


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([1e-38, 1e-3, 0.013, 0.5, 1.0, 77.7, 1e30]), st.floats(0.5, 1.0, width=32), st.integers(1, 8))
def test_any_lsq_scale(magnitude: float, factor: float, bits: int) -> None:
    module = LSQ(magnitude * factor, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    step = probe(module, SHAPE, "lsq")
    assert step.n_steps == 2**bits - 1
    assert_equal_near_thresholds(module, step)


@settings(max_examples=20, deadline=None)
@given(
    st.floats(-2, 2, width=32).filter(lambda v: abs(v) > 1e-3),
    st.floats(-20, 20, width=32).filter(lambda v: abs(v) > 1e-3),
)
def test_qn_with_gains_of_either_sign(alpha: float, beta: float) -> None:
    module = QNQuantizer([0, 1, 2, 3])
    with torch.no_grad():
        module.alpha.fill_(alpha)
        module.beta.fill_(beta)
    step = probe(module, SHAPE, "qn")
    assert (step.values[-1] > step.values[0]) == (alpha * beta > 0)
    assert_equal_near_thresholds(module, step)


def test_qn_threshold_is_where_the_rounded_product_passes_the_bias() -> None:
    """b / beta would be another float for about one bias in three: the product is rounded before b is subtracted."""
    module = QNQuantizer([0, 1])
    rng = np.random.default_rng(0)
    differing = 0
    for beta, bias in rng.uniform(0.5, 2, (20, 2)).astype(np.float32):
        with torch.no_grad():
            module.beta.fill_(float(beta))
            module.biases.fill_(float(bias))
        threshold = probe(module, SHAPE, "qn").thresholds[0]
        assert threshold * beta > bias
        assert np.nextafter(threshold, -INFINITY) * beta <= bias
        differing += int(threshold != np.nextafter(bias / beta, INFINITY))
    assert differing > 0


@pytest.mark.parametrize("shape", [(4,), (2, 10), (2, 3, 7), (1, 3, 224, 224), (1, 2, 3, 4, 5)])
def test_ranks(shape: tuple[int, ...]) -> None:
    assert probe(Elementwise(torch.sign), shape, "sign").n_steps == 2


def test_mode_and_state_are_left_alone() -> None:
    module = QNQuantizer([0, 1, 2, 3])
    module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert probe(module, SHAPE, "qn").n_steps == 3
    assert module.training
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())

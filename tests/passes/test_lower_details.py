"""Single claims of lowering that the matrix does not isolate."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from agreement import check_agreement

from qexport.ir import Graph, real
from qexport.ops import Affine, AvgPool, Clip, Conv2d, MaxPool, Op, PRelu, Rescale, Step, Threshold, Weight
from qexport.passes.layers import LayerOptions, quantize_layers
from qexport.passes.lower import Lowered, lower
from qexport.stepfunction import StepFunction

EVERY_PIXEL = np.arange(256).reshape(1, 1, 16, 16)


def lowered(*ops: Op) -> Lowered:
    """A chain of ops on a one-channel 16 x 16 image."""
    graph = Graph()
    name = graph.add_input("image", real((1, 16, 16), 0, 255))
    for i, op in enumerate(ops):
        name = graph.add(f"op{i}", op, name)
    graph.outputs = [name]
    return lower(quantize_layers(graph, LayerOptions()))


def affine(gain: Fraction, bias: Fraction = Fraction(0)) -> Affine:
    return Affine((gain,), (bias,))


@pytest.mark.parametrize("steps", [15, 16, 255])
def test_many_uniform_steps_become_a_rescale(steps: int) -> None:
    low = lowered(affine(Fraction(1, 3)), Step(StepFunction.uniform(Fraction(1, 4), 0, steps)))
    kinds = [type(n.op) for n in low.graph.nodes]
    assert kinds == [Threshold if steps <= 15 else Rescale]
    check_agreement(low, EVERY_PIXEL)


def test_rescaled_quantizer_states_the_rounding_of_its_float32_thresholds() -> None:
    """Thresholds are float32, the rescale rounds at the exact middles: between the two a code may differ."""
    scale = Fraction(1, 10)
    function = StepFunction.uniform(scale, 0, 255)
    off = max(abs(Fraction(float(t)) - (i + Fraction(1, 2)) * scale) for i, t in enumerate(function.thresholds))
    assert off > 0
    low = lowered(affine(Fraction(1, 20), Fraction(0)), Step(function))
    assert low.folds["op1"].coded
    assert low.folds["op1"].error >= float(off)
    seen = check_agreement(low, EVERY_PIXEL)
    assert seen.differing > 0  # pixel 13 is worth 0.65, exactly the middle of levels 6 and 7, below its float32


CLIPS = [
    (None, Fraction(3, 10)),
    (Fraction(1, 3), None),
    (Fraction(1, 3), Fraction(17, 3)),
    (None, Fraction(2549, 10)),
    (Fraction(0), Fraction(10**9)),
]


@pytest.mark.parametrize(("lo", "hi"), CLIPS)
def test_clip_bound_off_the_step(lo: Fraction | None, hi: Fraction | None) -> None:
    """The error of a rounded bound is stated also where no integer passes it; bounds out of reach are dropped."""
    check_agreement(lowered(Clip(lo, hi)), EVERY_PIXEL)
    check_agreement(lowered(Clip(lo, hi), affine(Fraction(-3, 7), Fraction(1)), Clip(Fraction(-2), None)), EVERY_PIXEL)


@pytest.mark.parametrize("slope", [Fraction(0), Fraction(1, 1000), Fraction(1), Fraction(5, 2)])
def test_prelu_without_quantizer(slope: Fraction) -> None:
    low = lowered(affine(Fraction(1, 7), Fraction(-20)), PRelu((slope,)))
    check_agreement(low, EVERY_PIXEL)
    assert 0 < low.outputs[0].error < 1e-5


def test_maximum_of_a_falling_channel_is_exact() -> None:
    low = lowered(affine(Fraction(-1, 7), Fraction(9)), PRelu((Fraction(1, 4),)), MaxPool((2, 2), (2, 2)),
                  Step(StepFunction.uniform(Fraction(1, 2), -3, 3)))  # fmt: skip
    assert low.folds["op3"].error == 0
    assert check_agreement(low, EVERY_PIXEL).differing == 0


def test_average_keeps_the_integer_sum() -> None:
    low = lowered(
        affine(Fraction(1, 7), Fraction(9)), AvgPool((4, 4), (4, 4)), Step(StepFunction.uniform(Fraction(5), 0, 3))
    )
    assert low.folds["op2"].error == 0
    assert check_agreement(low, EVERY_PIXEL).differing == 0


@pytest.mark.parametrize("tail", [(), (MaxPool((2, 2), (2, 2)),), (AvgPool((2, 2), (2, 2)),)])
def test_relu_on_codes_is_exact(tail: tuple[Op, ...]) -> None:
    """A ReLU behind a signed quantizer leaves integers, and the layer that reads them has no error."""
    weight = Weight(np.array([[[[1]]], [[[-1]]]], np.int32), (Fraction(1, 2),) * 2, level_set=(-1, 1))
    low = lowered(affine(Fraction(1, 7), Fraction(-18)), Step(StepFunction.uniform(Fraction(2), -4, 3)),
                  Clip(Fraction(0), None), *tail, Conv2d(weight))  # fmt: skip
    assert low.outputs[0].error == 0
    assert check_agreement(low, EVERY_PIXEL).codes == 256

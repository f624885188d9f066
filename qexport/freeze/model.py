"""A network whose soft quantizers became step functions and constant weights, bit for bit the same in evaluation."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from qexport.errors import FreezeError
from qexport.freeze.gap import QuantizerGap, activation_gap, weight_gap
from qexport.freeze.probe import probe
from qexport.freeze.quantizers import QuantizerCalls, find_quantizers, observe
from qexport.freeze.step_op import FrozenActivation, FrozenWeight
from qexport.freeze.weights import count_near_steps, count_near_thresholds
from qexport.levels import QuantizedWeight, recover_weight
from qexport.models.quantizers.base import set_soft
from qexport.stepfunction import StepFunction


@dataclass(frozen=True)
class FrozenModel:
    """A frozen network and what its quantizers became, each by the module name of the quantizer.

    Attributes:
        module: a copy of the network in evaluation mode. Activation quantizers are FrozenActivation, weight
            quantizers FrozenWeight; it returns what the original returned.
        activations: step functions of the activation quantizers; also of an elementwise quantizer that is given
            several weights, or weights and activations.
        weights: levels and scale of every weight quantizer's result.
        near_thresholds: how many weights lie so near a threshold that other arithmetic might give another level.
        float_weights: weight quantizers whose result has too many values for levels; frozen as they are.
        unused: quantizers the forward pass never calls; left as they were.
        gaps: of the quantizers that have a soft form, at the temperature they have.
    """

    module: nn.Module
    activations: dict[str, StepFunction]
    weights: dict[str, QuantizedWeight]
    near_thresholds: dict[str, int]
    float_weights: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    gaps: Mapping[str, QuantizerGap] = field(default_factory=dict)


def freeze(model: nn.Module, example: Tensor, *, quantizer_types: tuple[type[nn.Module], ...] = ()) -> FrozenModel:
    """Replace every quantizer of a copy of `model` by the step function or the constant that it is in evaluation.

    Quantizers are the SoftQuantizers of qexport and all instances of `quantizer_types`. One forward pass shows which
    are given weights. Weights are quantized there and nowhere else, in the network's own arithmetic and layout.

    Args:
        model: left as it is.
        example: float32, an input of the network, batch first; only its shape matters.
        quantizer_types: further classes of quantizers.

    Raises:
        FreezeError: a quantizer is no scalar step function, a weight is not finite, the network fails on `example`, or
            it does not give the same output after freezing.
    """
    frozen = copy.deepcopy(model).eval()
    set_soft(frozen, False)
    quantizers = find_quantizers(frozen, quantizer_types)
    calls, expected = observe(frozen, quantizers, example)
    activations: dict[str, StepFunction] = {}
    weights: dict[str, QuantizedWeight] = {}
    near_thresholds: dict[str, int] = {}
    float_weights: list[str] = []
    gaps: dict[str, QuantizerGap | None] = {}
    for name, quantizer in quantizers.items():
        called = calls[name]
        if called.is_constant:
            ((weight, output),) = called.weights
            quantized = recover_weight(output.detach().numpy(), name, known_quantized=True)
            if quantized is None:
                float_weights.append(name)
            else:
                weights[name] = quantized
                near_thresholds[name] = count_near_thresholds(quantizer, weight, quantized, name)
            gaps[name] = weight_gap(quantizer, weight)
            frozen = _replaced(frozen, quantizer, FrozenWeight(output.detach()))
        elif called.shape is not None:
            activations[name] = step = _probe_called(quantizer, called, called.shape, name)
            if called.weights:
                near_thresholds[name] = sum(count_near_steps(step, weight) for weight, _ in called.weights)
            gaps[name] = activation_gap(quantizer, step)
            frozen = _replaced(frozen, quantizer, FrozenActivation(step))
    _check_same_output(frozen, example, expected)
    unused = tuple(name for name in quantizers if calls[name].shape is None)
    soft = {name: gap for name, gap in gaps.items() if gap is not None}
    return FrozenModel(frozen, activations, weights, near_thresholds, tuple(float_weights), unused, soft)


def _probe_called(quantizer: nn.Module, called: QuantizerCalls, shape: tuple[int, ...], name: str) -> StepFunction:
    """Probe, and say so where only sharing makes it necessary."""
    try:
        return probe(quantizer, shape, name)
    except FreezeError as error:
        if not called.weights:
            raise
        raise FreezeError(
            f"one quantizer serves {called.described}, and is no elementwise step function: {error.what}",
            where=name,
            got=error.got,
            expected="an elementwise quantizer, or one that is given a single weight tensor",
            remedy="give every layer its own instance of the quantizer",
        ) from error


def _replaced(root: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """`root` with every reference to the submodule `old` turned to `new`; `new` itself where `root` is `old`."""
    if root is old:
        return new
    for parent in list(root.modules()):
        for child_name, child in list(parent._modules.items()):
            if child is old:
                setattr(parent, child_name, new)
    return root


def _check_same_output(frozen: nn.Module, example: Tensor, expected: object) -> None:
    with torch.no_grad():
        output = frozen(example.clone())
    for before, after in zip(_tensors(expected), _tensors(output), strict=True):
        wrong = ~((before == after) | ((before != before) & (after != after)))
        if wrong.any():
            raise FreezeError(
                "the frozen network gives another output than the original in evaluation mode",
                got=f"{int(wrong.sum())} of {wrong.numel()} outputs differ",
                expected="the same outputs, bit for bit",
                remedy="a quantizer is used other than by calling it, works in place, or the network is random",
            )


def _tensors(output: object) -> Iterator[Tensor]:
    """The tensors in a network's output: a tensor, or nested sequences and dicts of them."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for part in output.values():
            yield from _tensors(part)
    elif isinstance(output, list | tuple):
        for part in output:
            yield from _tensors(part)

"""A quantizer module seen as a function of one float32, and the refusal of modules that are none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from qexport.errors import FreezeError

LARGEST_TEST_EXTENT = 16
"""Dimensions after the second are cut to this in the test of positions; it keeps the probe fast on large images."""

LANES = 64
"""Batches are padded to a multiple of this. torch leaves the rest of a vector to scalar code, whose exp and tanh may
differ in the last bit from the vector code that does nearly all of a real tensor."""

STEP_OR_FLOAT = (
    "give the quantizer an eval-mode forward that depends on each element alone and returns the hard level itself, "
    "or leave it out of the quantizers: its layer is then treated as float"
)


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Every submodule in evaluation mode; each gets its own mode back afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def single_thread() -> Iterator[None]:
    """torch on one thread: several would cut a batch at places that are no multiple of LANES, and gain nothing here."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


class ScalarModule:
    """Calls a quantizer as the network does, with tensors of the network's rank, and checks what comes back.

    Args:
        module: the quantizer, in evaluation mode.
        example_shape: shape of the tensor the network gives it, batch first.
        name: of the quantizer, for messages.
    """

    def __init__(self, module: nn.Module, example_shape: Sequence[int], name: str) -> None:
        self.module = module
        self.name = name
        self.trailing = (1,) * (len(example_shape) - 1)
        self.test_shape = (2, *example_shape[1:2], *(min(extent, LARGEST_TEST_EXTENT) for extent in example_shape[2:]))

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The output for each value of `x`, float32 [n]: one sample per value, shaped [n, 1, 1, ...].

        Raises:
            FreezeError: the module fails, or its output has another shape or type than its input.
        """
        padded = np.pad(x, (0, -x.size % LANES), mode="edge")
        return self._evaluate(padded, (padded.size, *self.trailing))[: x.size]

    def in_network_shape(self, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Fill a tensor of the network's channels and extents with the values of `x`, in shuffled order.

        Returns:
            (inputs, outputs), both float32 and flat.

        Raises:
            FreezeError: as for a call.
        """
        n_elems = int(np.prod(self.test_shape))
        filled = np.random.default_rng(0).permutation(np.resize(x, max(n_elems, x.size)))[:n_elems]
        return filled, self._evaluate(filled, self.test_shape)

    def _evaluate(self, x: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
        # A copy: a quantizer may work in place.
        batch = torch.from_numpy(x.copy()).reshape(shape)
        try:
            with torch.no_grad():
                out = self.module(batch)
        except Exception as error:  # the module is the user's code and may raise anything
            raise FreezeError(
                f"the quantizer failed on a float32 tensor of shape {list(shape)}",
                where=self.name,
                got=f"{type(error).__name__}: {error}",
                expected="an elementwise module without parameters per channel, which takes one tensor of any extent",
                remedy=STEP_OR_FLOAT,
            ) from error
        return self._checked(out, shape).detach().reshape(-1).numpy()

    def _checked(self, out: object, shape: tuple[int, ...]) -> torch.Tensor:
        if not isinstance(out, torch.Tensor) or out.dtype != torch.float32:
            raise FreezeError(
                "the quantizer's output is no float32 tensor",
                where=self.name,
                got=out.dtype if isinstance(out, torch.Tensor) else type(out).__name__,
                expected="torch.float32",
                remedy="return the quantized value as a float32 tensor",
            )
        if tuple(out.shape) != shape:
            raise FreezeError(
                "the quantizer changes the shape of its input: it has parameters per channel or per position",
                where=self.name,
                got=f"input {list(shape)} -> output {list(out.shape)}",
                expected="one set of parameters for the whole tensor, of shape [] or all ones",
                remedy="move the per-channel scale into the layer before it (batch norm can carry it)",
            )
        return out


def check_elementwise(function: ScalarModule) -> None:
    """Refuse a module whose output for a value depends, by more than rounding, on anything but that value.

    Raises:
        FreezeError: it is random, or depends on the rest of its input or on the position.
    """
    magnitudes = np.geomspace(1e-3, 1e3, 61)
    sample = np.concatenate([-magnitudes, magnitudes, np.linspace(-4, 4, 65)]).astype(np.float32)
    alone = function(sample)
    _refuse(function, sample, alone, function(sample), "gives two results for the same input (random, or stateful)")
    wider = function(np.concatenate([sample, 100 * sample]))[: sample.size]
    _refuse(function, sample, alone, wider, "depends on the other values of its input (dynamic range?)")
    inputs, outputs = function.in_network_shape(sample)
    elementwise = dict(zip(sample.tolist(), alone.tolist(), strict=True))
    expected = np.array([elementwise[x] for x in inputs.tolist()], np.float32)
    _refuse(function, inputs, expected, outputs, "depends on the position in its input or on the neighbours there")


def _refuse(
    function: ScalarModule, x: NDArray[np.float32], a: NDArray[np.float32], b: NDArray[np.float32], how: str
) -> None:
    # Not exact: which elements fall to the scalar code for the end of a vector changes with the shape.
    wrong = np.flatnonzero(~np.isclose(a, b, rtol=1e-4, atol=0.0, equal_nan=True))
    if wrong.size:
        i = wrong[0]
        raise FreezeError(
            f"the quantizer's output {how}",
            where=function.name,
            got=f"input {x[i]} once gives {a[i]} and once {b[i]}",
            expected="a fixed function of one value",
            remedy=STEP_OR_FLOAT,
        )

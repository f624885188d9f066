"""What differs between the papers' recipes; the loop is the same for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn


@dataclass(frozen=True)
class Phase:
    """One stretch of training, of the network that `arguments` build.

    Attributes:
        name: for people.
        arguments: which quantizers the architecture gets, as its keyword arguments.
        epochs: at least 1.
        temperature: of all soft quantizers, by epoch of the phase, counted from 1.
    """

    name: str
    arguments: Mapping[str, Any]
    epochs: int
    temperature: Callable[[int], float]


class Scheme(Protocol):
    """A family of soft quantizers and the way they are trained.

    Attributes:
        family: prefix of the scheme's architectures in qexport.models.registry.
        arguments: quantizer arguments of the final network.
        quantizer_rate: learning rate of the quantizers' own parameters, relative to that of the weights.
    """

    family: str
    arguments: Mapping[str, Any]
    quantizer_rate: float

    def phases(self, epochs: int) -> Sequence[Phase]:
        """`epochs` divided into phases; the last one trains the final network."""
        ...

    def initialise(self, model: nn.Module, fresh: frozenset[str], images: Tensor) -> None:
        """Set the parameters of the quantizers a phase adds, from the weights and activations they will quantize.

        Args:
            model: the network of the phase, in evaluation mode; changed in place.
            fresh: names of its parameters that the phase before did not have.
            images: float32 [N, C, H, W], normalised.
        """
        ...


def share_epochs(epochs: int, shares: Sequence[float]) -> list[int]:
    """`epochs` divided by `shares` (their sum is 1), at least one each; the last phase takes what rounding leaves."""
    first = [max(1, round(epochs * share)) for share in shares[:-1]]
    return [*first, max(1, epochs - sum(first))]

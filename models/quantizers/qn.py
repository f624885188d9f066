"""Quantization Networks (Yang et al., CVPR 2019): a sum of sigmoids that becomes a sum of steps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qexport.errors import DataError, OptionError
from qexport.models.quantizers.base import SoftQuantizer

SIGMOID_LIMIT = 10.0
"""The public code clamps the sigmoid's argument to +-10."""

CENTRE_THRESHOLD = 0.05
"""The two thresholds round a level 0 start at +-0.05 (section 3.4 of the paper)."""


class QNQuantizer(SoftQuantizer):
    """y = alpha * (sum_i s_i * sigmoid(T * (beta * x - b_i)) - o), with steps instead of sigmoids in evaluation.

    s_i are the gaps between neighbouring levels and o = -levels[0], so the values are alpha * levels. For the
    symmetric levels of weights this o is the paper's sum(s)/2, for activations, which start at 0, it is 0.

    alpha, beta (shape []) and biases (shape [n_levels - 1], ascending; equal neighbours skip a level) are parameters.
    The paper freezes the biases after their initialisation, some public code trains them: `learn_biases`.

    Args:
        levels: ascending integers, at least two, such as [-1, 0, 1], [-4, -2, -1, 0, 1, 2, 4] or [0, 1, 2, 3].
        learn_biases: whether training moves the biases.

    Raises:
        OptionError: the levels are not ascending integers.
    """

    def __init__(self, levels: Sequence[int], *, learn_biases: bool = False) -> None:
        super().__init__()
        self.levels = checked_levels(levels)
        self.gaps = tuple(float(b - a) for a, b in pairwise(self.levels))
        self.offset = float(-self.levels[0])
        middles = [(a + b) / 2 for a, b in pairwise(self.levels)]
        self.alpha = nn.Parameter(torch.ones(()))
        self.beta = nn.Parameter(torch.ones(()))
        self.biases = nn.Parameter(torch.tensor(middles), requires_grad=learn_biases)

    def soft(self, x: Tensor) -> Tensor:
        """Equation (3) of the paper; its gradients (5)-(7) are those autograd derives from it.

        Where the clamp acts, the derivative is 0 instead of the sigmoid's, which is below 4.6e-5 there.
        """
        scaled = x * self.beta
        total = torch.zeros_like(scaled)
        for bias, gap in zip(self.biases.unbind(), self.gaps, strict=True):
            argument = torch.clamp(self.temperature * (scaled - bias), -SIGMOID_LIMIT, SIGMOID_LIMIT)
            total = total + gap * torch.sigmoid(argument)
        return (total - self.offset) * self.alpha

    def hard(self, x: Tensor) -> Tensor:
        """The step form; strictly greater, as the public code has it (the paper writes >=).

        x * beta is rounded to float32 before b is subtracted: where a product lies within one rounding of b,
        comparing with b / beta would give another code.
        """
        scaled = x * self.beta
        total = torch.zeros_like(scaled)
        for bias, gap in zip(self.biases.unbind(), self.gaps, strict=True):
            total = total + gap * ((scaled - bias) > 0).to(scaled.dtype)
        return (total - self.offset) * self.alpha

    def near_threshold(self, x: Tensor, tolerance: float) -> int:
        """Counted on beta * x, against the biases."""
        scaled = (x.detach() * self.beta.detach()).flatten().double()
        distances = (scaled[:, None] - self.biases.detach().double()).abs()
        return int((distances <= tolerance).any(dim=1).sum())

    def extra_repr(self) -> str:
        return f"levels={list(self.levels)}"


def checked_levels(levels: Sequence[int]) -> tuple[int, ...]:
    """`levels` as a tuple of ints.

    Raises:
        OptionError: fewer than two levels, a level that is no integer, or levels that do not ascend.
    """
    whole = all(isinstance(level, int) and not isinstance(level, bool) for level in levels)
    if len(levels) < 2 or not whole or any(a >= b for a, b in pairwise(levels)):
        raise OptionError(
            "quantizer levels must be ascending integers",
            got=list(levels)[:16],
            expected="at least two, such as -1,0,1 or 0,1,2,3",
        )
    return tuple(levels)


def initialise_from_samples(quantizer: QNQuantizer, samples: Tensor) -> None:
    """Set alpha, beta and the biases from the tensor to be quantized, as section 3.4 of the paper does.

    beta = 5p / (4q) with p = max|levels| and q = max|samples|; alpha = 1 / beta. Biases: 0 for two symmetric levels;
    otherwise the middles between the centres that k-means finds in beta * samples, one cluster per level. Where 0 is
    an inner level, the two thresholds round it are then forced to +-0.05.

    Args:
        quantizer: changed in place.
        samples: float32, any shape; the weight tensor, or activations of a thousand images.

    Raises:
        DataError: the samples are empty, not finite, or all zero.
    """
    values = samples.detach().double().flatten().cpu().numpy()
    peak = float(np.max(np.abs(values), initial=0.0))
    if not np.isfinite(peak) or peak == 0.0:
        raise DataError(
            "a quantizer cannot be initialised from these samples",
            got=f"{values.size} values, largest magnitude {peak}",
            expected="finite values, not all zero",
        )
    levels = quantizer.levels
    beta = 5 * max(abs(level) for level in levels) / (4 * peak)
    if len(levels) == 2 and levels[0] == -levels[1]:
        biases = np.zeros(1)
    else:
        centres = k_means_1d(beta * values, len(levels))
        biases = (centres[1:] + centres[:-1]) / 2
    if 0 in levels[1:-1]:
        zero = levels.index(0)
        biases[zero - 1], biases[zero] = -CENTRE_THRESHOLD, CENTRE_THRESHOLD
    with torch.no_grad():
        quantizer.alpha.fill_(1 / beta)
        quantizer.beta.fill_(beta)
        # Forcing the middle pair may leave it outside its neighbours; sorting keeps the biases ascending.
        quantizer.biases.copy_(torch.from_numpy(np.sort(biases)))


def k_means_1d(values: NDArray[np.float64], n_clusters: int, n_rounds: int = 100) -> NDArray[np.float64]:
    """Lloyd's algorithm on a line, started from equally spaced centres so that the result is reproducible.

    Args:
        values: float64 [n].
        n_clusters: k.
        n_rounds: most rounds taken.

    Returns:
        The centres, float64 [k], ascending. An empty cluster keeps its centre.
    """
    ordered = np.sort(values)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    centres = np.linspace(ordered[0], ordered[-1], n_clusters)
    for _ in range(n_rounds):
        inner = np.searchsorted(ordered, (centres[1:] + centres[:-1]) / 2)
        bounds = np.concatenate([[0], inner, [ordered.size]])
        counts = np.diff(bounds)
        means = np.where(counts > 0, np.diff(sums[bounds]) / np.maximum(counts, 1), centres)
        if np.array_equal(means, centres):
            break
        centres = means
    return centres

"""Quantizers the library has never seen, frozen by probing and lowered: the same agreement as hand-made ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from agreement import check_agreement, images
from networks import Lambda, batch_norm
from torch import nn

from qexport.capture import capture
from qexport.freeze.model import freeze
from qexport.ops import Conv2d, Step
from qexport.passes.layers import LayerOptions, quantize_layers
from qexport.passes.lower import lower

torch.set_num_threads(1)


class Lsq(nn.Module):
    """A quantizer the library has never seen."""

    def __init__(self, step: float, low: int, high: int) -> None:
        super().__init__()
        self.step, self.low, self.high = nn.Parameter(torch.tensor(step)), low, high

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.round(torch.clamp(x / self.step, self.low, self.high)) * self.step


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 3), (-2, 1), (0, 15), (-128, 127), (0, 255)])
def test_unseen_quantizer(low: int, high: int) -> None:
    torch.manual_seed(low + high)
    rng = np.random.default_rng(high)
    net = Lambda(
        lambda m, x: m.q2(m.bn2(nn.functional.conv2d(m.q(m.bn(m.c(x))), m.wq(m.w.weight), padding=1))),  # type: ignore[operator,union-attr]
        c=nn.Conv2d(3, 4, 3), bn=batch_norm(rng, 4), q=Lsq(0.9 / (high - low), low, high),
        w=nn.Conv2d(4, 5, 3), wq=Lsq(0.07, -2, 1), bn2=batch_norm(rng, 5), q2=Lsq(0.3, 0, 3),
    )  # fmt: skip
    frozen = freeze(net, torch.zeros(2, 3, 8, 8), quantizer_types=(Lsq,))
    graph = capture(frozen.module, (3, 8, 8)).graph
    assert len(list(graph.find(Step))) == 2
    assert [n.op.weight.is_quantized for n in graph.find(Conv2d)] == [False, True]  # type: ignore[attr-defined]
    low_graph = lower(quantize_layers(graph, LayerOptions()))
    seen = check_agreement(low_graph, images((3, 8, 8), rng))
    assert seen.codes > 0
    assert low_graph.folds["q"].coded == (high - low > 15)

"""The step operator: float comparison, memory layout, and what torch asks of an operator."""

from __future__ import annotations

import pytest
import torch

from qexport.freeze.step_op import step

EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))

STEP_INPUTS = torch.tensor([-torch.inf, -1.0, -1e-45, -0.0, 0.0, 1e-45, 0.5, 0.50000006, torch.inf])


def test_step_operator_compares_as_floats() -> None:
    thresholds, values = torch.tensor([0.0, 1e-45, 0.50000006]), torch.tensor([-1.0, 0.0, 1.0, 2.0])
    assert step(STEP_INPUTS, thresholds, values).tolist() == [-1, -1, -1, 0, 0, 1, 1, 2, 2]
    assert step(STEP_INPUTS, torch.tensor([]), torch.tensor([7.0])).tolist() == [7.0] * 9


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_step_operator_keeps_the_layout(layout: torch.memory_format) -> None:
    x = EXAMPLE.contiguous(memory_format=layout)
    torch.library.opcheck(step, (x, torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0, 2.0])))
    out = step(x, torch.tensor([0.0]), torch.tensor([0.0, 1.0]))
    assert out.stride() == x.stride()
    assert torch.equal(out, (x >= 0).float())

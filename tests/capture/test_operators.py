"""Every torch operator of the table gives in the real graph what it gives in torch."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from networks import Lambda, quantizer
from torch import Tensor, nn

from qexport.capture import capture
from qexport.ops import (
    Add,
    Affine,
    AvgPool,
    Clip,
    Concat,
    Conv2d,
    L2Norm,
    Linear,
    MaxPool,
    Op,
    Pad,
    PRelu,
    Reshape,
    Slice,
    Step,
    Transpose,
)
from qexport.reference import interpret

torch.set_num_threads(1)
SHAPE = (3, 8, 8)
Forward = Callable[[nn.Module, Tensor], object]


def network(forward: Forward) -> nn.Module:
    """A module with the parts the forwards below use; deterministic."""
    torch.manual_seed(0)
    bn = nn.BatchNorm2d(4)
    bn.weight.data, bn.bias.data = torch.tensor([1.5, -0.5, 0.0, 1e-7]), torch.randn(4)
    assert bn.running_mean is not None
    assert bn.running_var is not None
    bn.running_mean.copy_(torch.randn(4))
    bn.running_var.copy_(torch.rand(4) + 0.1)
    prelu = nn.PReLU(4)
    prelu.weight.data = torch.rand(4)
    return Lambda(
        forward,
        c=nn.Conv2d(3, 4, 3),
        d=nn.Conv2d(4, 4, 3, groups=2, padding=1),
        same=nn.Conv2d(3, 4, 4, padding="same", dilation=2),
        l=nn.Linear(144, 5),
        m=nn.Linear(5, 5, bias=False),
        bn=bn,
        plain_bn=nn.BatchNorm2d(4, affine=False),
        prelu=prelu,
        one_prelu=nn.PReLU(),
        q=quantizer((0, 1, 2, 4), 0.1),
        lsq_plus=quantizer((0, 1, 2, 3), 0.25, offset=-0.1034567),
        drop=nn.Dropout(),
        drop2d=nn.Dropout2d(),
        weights=nn.ParameterDict({"w": nn.Parameter(torch.randn(4, 3, 3, 3)), "b": nn.Parameter(torch.randn(4, 1, 1))}),  # type: ignore[dict-item]
    ).eval()


def compare(forward: Forward, tolerance: float = 2e-6) -> list[type[Op]]:
    """Capture, compare with torch on two batch sizes, return the kinds of ops behind the normalisation."""
    module = network(forward)
    found = capture(module, SHAPE)
    for count in (1, 5):
        x = np.random.default_rng(count).integers(0, 256, (count, *SHAPE))
        with torch.no_grad():
            expected = module(torch.tensor(x, dtype=torch.float32) / 255)
        outputs = list(expected) if isinstance(expected, tuple | list) else [expected]
        got = interpret(found.graph, {"image": x}).outputs
        assert len(found.graph.outputs) == len(outputs)
        for name, want in zip(found.graph.outputs, outputs, strict=True):
            assert got[name].shape == want.shape
            assert np.abs(got[name] - want.numpy()).max() <= tolerance * max(1.0, float(want.abs().max()))
    return [type(n.op) for n in found.graph.nodes][1:]


def _no_grad(m: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        weight = torch.sign(m.weights["w"])  # type: ignore[index]
    return F.conv2d(x, weight)


def _view_then_inplace(m: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    y = m.c(x)  # type: ignore[operator]
    view = y.view(y.size(0), -1)
    y.add_(1)
    return view, y


def _relu_inplace_then_read(m: nn.Module, x: Tensor) -> Tensor:
    y = m.c(x)  # type: ignore[operator]
    z = F.relu(y, inplace=True)
    return z + y


def _augmented(m: nn.Module, x: Tensor) -> Tensor:
    y = m.c(x)  # type: ignore[operator]
    y += m.d(y)  # type: ignore[operator]
    y *= 2
    return y


TABLE: dict[str, tuple[Forward, list[type[Op]]]] = {
    "conv with bias": (lambda m, x: m.c(x), [Conv2d, Affine]),
    "conv padding same": (lambda m, x: m.same(x), [Conv2d, Affine]),
    "F.pad and conv": (lambda m, x: m.c(F.pad(x, (0, 1, 2, 1))), [Conv2d, Affine]),
    "F.pad, padded conv": (lambda m, x: m.d(F.pad(m.c(x), (1, 0, 0, 3))), [Conv2d, Affine, Conv2d, Affine]),
    "F.pad, max pool": (lambda m, x: F.max_pool2d(F.pad(m.c(x), (1, 0, 0, 3)), 2), [Conv2d, Affine, Pad, MaxPool]),
    "grouped conv": (lambda m, x: m.d(m.c(x)), [Conv2d, Affine, Conv2d, Affine]),
    "functional conv": (lambda m, x: F.conv2d(x, m.weights["w"], stride=(2, 1), padding=(1, 0)), [Conv2d]),
    "weight quantizer in forward": (lambda m, x: F.conv2d(x, torch.sign(m.weights["w"]) * 0.5), [Conv2d]),
    "straight-through weight": (
        lambda m, x: F.conv2d(x, m.weights["w"] + (torch.sign(m.weights["w"]) - m.weights["w"]).detach()),
        [Conv2d],
    ),
    "no_grad around a weight": (_no_grad, [Conv2d]),
    "batch norm": (lambda m, x: m.bn(m.c(x)), [Conv2d, Affine, Affine]),
    "batch norm without parameters": (lambda m, x: m.plain_bn(m.c(x)), [Conv2d, Affine, Affine]),
    "relu": (lambda m, x: F.relu(m.c(x)), [Conv2d, Affine, Clip]),
    "relu in place": (lambda m, x: F.relu(m.c(x), inplace=True), [Conv2d, Affine, Clip]),
    "relu in place, old name": (_relu_inplace_then_read, [Conv2d, Affine, Clip, Add]),
    "relu6": (lambda m, x: F.relu6(m.c(x) * 9), [Conv2d, Affine, Affine, Clip]),
    "relu6 in place": (lambda m, x: nn.ReLU6(inplace=True)(m.c(x) * 9), [Conv2d, Affine, Affine, Clip]),
    "hardtanh": (lambda m, x: F.hardtanh(m.c(x), -0.2, 0.3), [Conv2d, Affine, Clip]),
    "clamp": (lambda m, x: m.c(x).clamp(-0.1, 0.2), [Conv2d, Affine, Clip]),
    "clamp in place": (lambda m, x: m.c(x).clamp_(-0.1, 0.2), [Conv2d, Affine, Clip]),
    "clamp min": (lambda m, x: m.c(x).clamp(min=0.1), [Conv2d, Affine, Clip]),
    "clamp max": (lambda m, x: torch.clamp_max(m.c(x), 0.1), [Conv2d, Affine, Clip]),
    "clip": (lambda m, x: torch.clip(m.c(x), 0, 0.2), [Conv2d, Affine, Clip]),
    "leaky relu": (lambda m, x: F.leaky_relu(m.c(x), 0.1), [Conv2d, Affine, PRelu]),
    "leaky relu in place": (lambda m, x: F.leaky_relu(m.c(x), 0.1, True), [Conv2d, Affine, PRelu]),
    "prelu": (lambda m, x: m.prelu(m.c(x)), [Conv2d, Affine, PRelu]),
    "prelu with one slope": (lambda m, x: m.one_prelu(m.c(x)), [Conv2d, Affine, PRelu]),
    "quantizer": (lambda m, x: m.q(m.c(x)), [Conv2d, Affine, Step]),
    "quantizer with offset": (lambda m, x: m.lsq_plus(m.c(x)), [Conv2d, Affine, Step, Affine]),
    "add": (lambda m, x: m.c(x) + m.c(x) * 2, [Conv2d, Affine, Conv2d, Affine, Affine, Add]),
    "add with alpha": (lambda m, x: torch.add(m.c(x), m.c(x), alpha=3), [Conv2d, Affine] * 2 + [Affine, Add]),
    "subtract": (lambda m, x: m.c(x) - m.bn(m.c(x)), [Conv2d, Affine] * 2 + [Affine, Affine, Add]),
    "augmented assignment": (_augmented, [Conv2d, Affine, Conv2d, Affine, Add, Affine]),
    "constants": (lambda m, x: -(m.c(x) * 3 - m.weights["b"]) / 4 + 1, [Conv2d] + [Affine] * 6),
    "constant on the left": (lambda m, x: 2 + 3 * m.c(x), [Conv2d, Affine, Affine, Affine]),
    "max pool": (lambda m, x: F.max_pool2d(m.c(x), 3, 2, 1), [Conv2d, Affine, MaxPool]),
    "average pool": (lambda m, x: F.avg_pool2d(m.c(x), 3, 2, 1), [Conv2d, Affine, AvgPool]),
    "average pool without padding": (lambda m, x: F.avg_pool2d(m.c(x), (2, 3)), [Conv2d, Affine, AvgPool]),
    "adaptive average": (lambda m, x: nn.AdaptiveAvgPool2d(1)(m.c(x)), [Conv2d, Affine, AvgPool]),
    "adaptive average to 2 x 3": (lambda m, x: F.adaptive_avg_pool2d(m.c(x), (2, 3)), [Conv2d, Affine, AvgPool]),
    "average over its own size": (lambda m, x: F.avg_pool2d(m.c(x), m.c(x).size()[2:]), [Conv2d, Affine, AvgPool]),
    "mean": (lambda m, x: m.c(x).mean([2, 3]), [Conv2d, Affine, AvgPool, Reshape]),
    "mean, kept axes": (lambda m, x: m.c(x).mean((-1, -2), keepdim=True), [Conv2d, Affine, AvgPool]),
    "flatten": (lambda m, x: m.l(torch.flatten(m.c(x), 1)), [Conv2d, Affine, Reshape, Linear, Affine]),
    "nn.Flatten": (lambda m, x: m.l(nn.Flatten()(m.c(x))), [Conv2d, Affine, Reshape, Linear, Affine]),
    "view": (lambda m, x: m.l(m.c(x).view(x.size(0), -1)), [Conv2d, Affine, Reshape, Linear, Affine]),
    "view with open batch": (lambda m, x: m.l(m.c(x).view(-1, 144)), [Conv2d, Affine, Reshape, Linear, Affine]),
    "reshape": (lambda m, x: m.l(m.c(x).reshape(x.shape[0], -1)), [Conv2d, Affine, Reshape, Linear, Affine]),
    "squeeze": (
        lambda m, x: F.adaptive_avg_pool2d(m.c(x), 1).squeeze(-1).squeeze(-1),
        [Conv2d, Affine, AvgPool, Reshape],
    ),
    "linear without bias": (
        lambda m, x: m.m(m.l(m.c(x).flatten(1))),
        [Conv2d, Affine, Reshape, Linear, Affine, Linear],
    ),
    "dropout": (lambda m, x: m.drop2d(m.drop(m.c(x))), [Conv2d, Affine]),
    "functional dropout": (lambda m, x: F.dropout(m.c(x), 0.5, m.training), [Conv2d, Affine]),
    "moves of dtype": (lambda m, x: m.c(x.float()).to(torch.float32).contiguous(), [Conv2d, Affine]),
    "strided slice": (lambda m, x: m.c(x)[:, 1:3, ::2, 1::3], [Conv2d, Affine, Slice]),
    "negative slice": (lambda m, x: m.c(x)[:, -2:, :-1], [Conv2d, Affine, Slice]),
    "channel padding": (
        lambda m, x: F.pad(m.c(x)[:, :, ::2, ::2], (0, 0, 0, 0, 2, 3)),
        [Conv2d, Affine, Slice, Pad],
    ),
    "concat": (lambda m, x: torch.cat([m.c(x), x[:, :, 1:7, 1:7]], 1), [Conv2d, Affine, Slice, Concat]),
    "concat, negative axis": (lambda m, x: torch.cat((m.c(x), m.c(x)), -3), [Conv2d, Affine] * 2 + [Concat]),
    "concat of rows": (lambda m, x: torch.cat([m.c(x), m.c(x)[:, :, :2]], 2), [Conv2d, Affine] * 2 + [Slice, Concat]),
    "max pool, dilated and ceil": (
        lambda m, x: F.max_pool2d(m.c(x), 2, 3, 1, (1, 3), True), [Conv2d, Affine, MaxPool]
    ),
    "average pool, ceil": (lambda m, x: F.avg_pool2d(m.c(x), 4, 3, 2, True), [Conv2d, Affine, AvgPool]),
    "average pool of pixels": (
        lambda m, x: F.avg_pool2d(m.c(x), (5, 3), 2, (2, 1), True, False), [Conv2d, Affine, AvgPool]
    ),
    "adaptive maximum": (lambda m, x: nn.AdaptiveMaxPool2d(2)(m.c(x)), [Conv2d, Affine, MaxPool]),
    "global maximum": (lambda m, x: m.c(x).amax((2, 3)), [Conv2d, Affine, MaxPool, Reshape]),
    "mean over rows": (lambda m, x: m.c(x).mean(2), [Conv2d, Affine, AvgPool, Reshape]),
    "chunk": (lambda m, x: torch.cat(m.c(x).chunk(2, 1)[::-1], 1), [Conv2d, Affine, Slice, Slice, Concat]),
    "split": (lambda m, x: tuple(m.c(x).split(3, -1)), [Conv2d, Affine, Slice, Slice]),
    "split by sizes": (lambda m, x: m.c(x).split([1, 2, 1], 1)[1], [Conv2d, Affine, Slice]),
    "tensor_split": (lambda m, x: torch.tensor_split(m.c(x), 3, 1)[0], [Conv2d, Affine, Slice]),
    "narrow": (lambda m, x: m.c(x).narrow(2, 1, 3), [Conv2d, Affine, Slice]),
    "select": (lambda m, x: m.c(x)[:, -1], [Conv2d, Affine, Slice, Reshape]),
    "select and unsqueeze": (lambda m, x: m.c(x)[:, 1].unsqueeze(1), [Conv2d, Affine, Slice]),
    "unbind": (lambda m, x: m.c(x).unbind(3)[2], [Conv2d, Affine, Slice, Reshape]),
    "unflatten": (lambda m, x: m.c(x).flatten(1).unflatten(1, (8, 18)), [Conv2d, Affine, Reshape]),
    "permute and reshape": (
        lambda m, x: m.c(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 2), [Conv2d, Affine, Transpose, Reshape]
    ),
    "permute and view": (
        lambda m, x: m.c(x).permute(0, 2, 3, 1).contiguous().view(x.size(0), 72, -1),
        [Conv2d, Affine, Transpose, Reshape],
    ),
    "five axes": (
        lambda m, x: m.c(x).view(x.shape[0], 2, 2, 6, 6).permute(0, 3, 4, 1, 2).reshape(x.shape[0], -1, 2),
        [Conv2d, Affine, Reshape, Transpose, Reshape],
    ),
    "transpose": (lambda m, x: m.c(x).transpose(-1, 1), [Conv2d, Affine, Transpose]),
    "transpose of a matrix": (lambda m, x: m.c(x).flatten(2).mT, [Conv2d, Affine, Reshape, Transpose]),
    "moved axis": (lambda m, x: m.c(x).movedim(1, -1), [Conv2d, Affine, Transpose]),
    "permutation that changes nothing": (lambda m, x: m.c(x).permute(0, 1, 2, 3), [Conv2d, Affine]),
    "changed in place": (
        lambda m, x: m.c(x).relu_().permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4),
        [Conv2d, Affine, Clip, Transpose, Reshape],
    ),
    "an input changed in place": (lambda m, x: m.c(x.mul_(0.5)), [Affine, Conv2d, Affine]),
    "normalize": (lambda m, x: F.normalize(m.c(x)) * m.weights["b"], [Conv2d, Affine, L2Norm, Affine]),
    "norm with a sum": (
        lambda m, x: m.weights["b"].expand_as(m.c(x)) * torch.div(y := m.c(x), y.pow(2).sum(1, True).sqrt() + 1e-10),
        [Conv2d, Affine, L2Norm, Affine],
    ),
    "norm in place": (
        lambda m, x: (y := m.c(x).relu_()).div(y.norm(dim=1, keepdim=True).clamp(min=1e-4)).mul_(2),
        [Conv2d, Affine, Clip, L2Norm, Affine],
    ),
    "shared module": (lambda m, x: m.d(m.d(m.c(x))), [Conv2d, Affine] * 3),
    "two outputs": (lambda m, x: (m.c(x), m.c(x).mean([2, 3])), [Conv2d, Affine, Conv2d, Affine, AvgPool, Reshape]),
    "a view of a value changed later": (_view_then_inplace, [Conv2d, Affine, Affine, Reshape]),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_operator(name: str) -> None:
    forward, kinds = TABLE[name]
    assert sorted(k.kind for k in compare(forward)) == sorted(k.kind for k in kinds)


def test_nodes_are_named_after_modules() -> None:
    graph = capture(network(lambda m, x: m.q(F.relu(m.bn(m.c(x))))), SHAPE).graph
    assert [n.name for n in graph.nodes] == ["normalize", "c", "c.bias", "bn", "relu", "q"]
    assert "module 'c'" in graph.node("c").source


def test_batch_norm_statistics() -> None:
    """Means and deviations of batch norm outputs are recorded under the tensor that carries them."""
    found = capture(network(lambda m, x: F.relu(m.bn(m.c(x)))), SHAPE)
    mean, deviation = found.statistics["bn"]
    assert np.allclose(deviation, [1.5, 0.5, 0.0, 1e-7])
    assert mean.shape == (4,)


def test_normalisation_is_exact_decimals() -> None:
    """--mean 0.485 means 485/1000, not the nearest float."""
    op = capture(network(lambda m, x: m.c(x)), SHAPE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)).graph.nodes[0].op
    assert isinstance(op, Affine)
    assert op.gain == tuple(Fraction(1000, 255 * d) for d in (229, 224, 225))
    assert op.bias == (Fraction(-485, 229), Fraction(-456, 224), Fraction(-406, 225))


def test_low_bit_weights_are_recovered() -> None:
    op = capture(network(lambda m, x: F.conv2d(x, torch.sign(m.weights["w"]) * 0.3)), SHAPE).graph.nodes[1].op
    assert isinstance(op, Conv2d)
    assert op.weight.level_set == (-1, 1)
    assert op.weight.scale == (Fraction(float(np.float32(0.3))),) * 4

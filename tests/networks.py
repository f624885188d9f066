"""Small torch networks with known integer levels, one builder a feature; what the lowering and backend matrices run on.

Weights are levels times a scale and activations FrozenActivation modules, so nothing has to be trained or frozen first.
Parameters are dyadic rationals with few bits where a builder says `dyadic`: every float64 sum is then exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from qexport.freeze.step_op import FrozenActivation
from qexport.stepfunction import StepFunction

POWERS = (-4, -2, -1, 0, 1, 2, 4)
TERNARY = (-1, 0, 1)
BINARY = (-1, 1)


def signed_levels(bits: int) -> tuple[int, ...]:
    """-2^(b-1) .. 2^(b-1) - 1; the two signs for one bit."""
    return BINARY if bits == 1 else tuple(range(-(2 ** (bits - 1)), 2 ** (bits - 1)))


def quantizer(
    levels: tuple[int, ...], scale: float = 0.5, spread: float | None = None, offset: float = 0.0
) -> nn.Module:
    """A frozen activation quantizer with thresholds half-way between its values, times `spread` where given."""
    values = np.array(levels, np.float64) * scale + offset
    thresholds = (values[1:] + values[:-1]) / 2 * (1.0 if spread is None else spread)
    function = StepFunction.from_values(thresholds.astype(np.float32), values.astype(np.float32))
    return FrozenActivation(function)


def unsigned(bits: int, scale: float = 0.5) -> nn.Module:
    return quantizer(tuple(range(2**bits)), scale)


def set_levels(
    layer: nn.Module, levels: tuple[int, ...], rng: np.random.Generator, scale: float = 0.25, per_channel: bool = False
) -> nn.Module:
    """Give a convolution or linear layer random integer levels times a scale (or one per output channel)."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    drawn = rng.choice(np.array(levels), size=tuple(weight.shape))
    drawn.reshape(-1)[: len(levels)] = levels[: drawn.size]  # every level occurs
    if per_channel:
        drawn[:, 0].reshape(len(drawn), -1)[:, 0] = max(levels, key=abs)  # every channel has the common step
        scales = scale * 2.0 ** rng.integers(-2, 2, len(drawn)) * rng.choice([1.0, 1.25, 1.5], len(drawn))
    else:
        scales = np.full(len(drawn), scale)
    values = drawn * scales.reshape(-1, *(1,) * (drawn.ndim - 1))
    weight.data = torch.tensor(values, dtype=torch.float32)
    return layer


def conv(
    rng: np.random.Generator,
    inputs: int,
    outputs: int,
    levels: tuple[int, ...] = TERNARY,
    kernel: int = 3,
    *,
    scale: float = 0.25,
    per_channel: bool = False,
    bias: bool = False,
    **options: object,
) -> nn.Module:
    layer = nn.Conv2d(inputs, outputs, kernel, bias=bias, **options)  # type: ignore[arg-type]
    if bias:
        layer.bias.data = torch.tensor(rng.integers(-8, 9, outputs) / 8, dtype=torch.float32)  # type: ignore[union-attr]
    return set_levels(layer, levels, rng, scale, per_channel)


def float_conv(rng: np.random.Generator, inputs: int, outputs: int, kernel: int = 3, **options: object) -> nn.Module:
    layer = nn.Conv2d(inputs, outputs, kernel, **options)  # type: ignore[arg-type]
    shape = tuple(layer.weight.shape)
    layer.weight.data = torch.tensor(rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape), dtype=torch.float32)
    if layer.bias is not None:
        layer.bias.data = torch.tensor(rng.normal(0, 0.2, outputs), dtype=torch.float32)
    return layer


def float_linear(rng: np.random.Generator, inputs: int, outputs: int) -> nn.Module:
    layer = nn.Linear(inputs, outputs)
    layer.weight.data = torch.tensor(rng.normal(0, 1 / np.sqrt(inputs), (outputs, inputs)), dtype=torch.float32)
    layer.bias.data = torch.tensor(rng.normal(0, 0.2, outputs), dtype=torch.float32)
    return layer


def linear(rng: np.random.Generator, inputs: int, outputs: int, levels: tuple[int, ...] = TERNARY) -> nn.Module:
    return set_levels(nn.Linear(inputs, outputs, bias=False), levels, rng)


def batch_norm(rng: np.random.Generator, channels: int, kind: str = "mixed", *, dyadic: bool = False) -> nn.BatchNorm2d:
    """Batch norm whose gains are "positive", or "mixed": negative, zero and 1e-7 among them.

    `dyadic`: variance 1, eps 0 and few-bit gains and means, so that thresholds meet reachable accumulators.
    """
    bn = nn.BatchNorm2d(channels, eps=0.0 if dyadic else 1e-5)
    if dyadic:
        gain = 2.0 ** rng.integers(-3, 1, channels)
        bias, mean, var = rng.integers(-4, 5, channels) / 4, rng.integers(-4, 5, channels) / 4, np.ones(channels)
    else:
        gain, bias = rng.uniform(0.2, 1.5, channels), rng.normal(0.3, 0.5, channels)
        mean, var = rng.normal(0, 0.5, channels), rng.uniform(0.3, 2.0, channels)
    if kind == "mixed":
        gain[0::3] *= -1
        gain[1] = 0.0
        if channels > 2 and not dyadic:
            gain[2] = 1e-7
    for tensor, value in ((bn.weight.data, gain), (bn.bias.data, bias), (bn.running_mean, mean), (bn.running_var, var)):
        assert tensor is not None
        tensor.copy_(torch.tensor(value))
    return bn


class Lambda(nn.Module):
    """A function of modules, as the forward of a user's network would have it."""

    def __init__(self, forward: Callable[..., object], **modules: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x: Tensor) -> object:
        return self._forward(self, x)


@dataclass(frozen=True)
class Case:
    """A network and how it is converted.

    Attributes:
        build: seed generator -> network; input "image" of `shape`.
        exact: the whole network is computed without any error, so every code must be equal.
        ties: values on a threshold occur, by choice of dyadic parameters (implies exact).
        calibrate: give every float activation of a layer an 8-bit quantizer.
        float_layers: how many convolutions and linear layers training left float.
        needs: attributes and ops of the IR that only some networks have: "dilation" (maximum pooling), "factors" (means
            whose windows count different numbers of pixels), "transpose", "reshape" (across channels), "concat axis",
            "l2_norm". A backend without one of them leaves these rows out.
    """

    build: Callable[[np.random.Generator], nn.Module]
    shape: tuple[int, ...] = (3, 8, 8)
    exact: bool = False
    ties: bool = False
    calibrate: bool = False
    float_layers: int = 0
    edge_bits: int | None = 16
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    needs: tuple[str, ...] = ()


CASES: dict[str, Case] = {}
"""Every network of the matrix by name; backends run the same table."""


def case(name: str, **options: object) -> Callable[[Callable[[np.random.Generator], nn.Module]], None]:
    def enter(build: Callable[[np.random.Generator], nn.Module]) -> None:
        assert name not in CASES, name
        CASES[name] = Case(build, **options)  # type: ignore[arg-type]

    return enter


def stem(rng: np.random.Generator, outputs: int = 6, act: nn.Module | None = None) -> nn.Sequential:
    """A low-bit first layer on the image, batch norm, quantizer: exact integers from the first pixel on."""
    first = conv(rng, 3, outputs, TERNARY, padding=1, scale=0.125)
    return nn.Sequential(first, batch_norm(rng, outputs, "positive"), act or unsigned(2))


def low_bit(rng: np.random.Generator, weights: tuple[int, ...], act: nn.Module, per_channel: bool) -> nn.Module:
    return nn.Sequential(
        stem(rng, 6, act),
        conv(rng, 6, 6, weights, padding=1, per_channel=per_channel),
        batch_norm(rng, 6),
        nn.ReLU(inplace=True),
        unsigned(2),
        conv(rng, 6, 5, weights, 1, per_channel=per_channel),
    )


def _bit_cases() -> None:
    weights = {f"w{b}": signed_levels(b) for b in (1, 2, 3, 4, 8)} | {"wt": TERNARY, "w4pow": POWERS}
    for i, (wname, levels) in enumerate(weights.items()):
        for per_channel in (False, True):
            bits = (1, 2, 3, 4, 2, 1, 4)[i]

            def build(
                rng: np.random.Generator, levels: tuple[int, ...] = levels, pc: bool = per_channel, bits: int = bits
            ) -> nn.Module:
                return low_bit(rng, levels, unsigned(bits), pc)

            case(f"{wname}-a{bits}-{'channel' if per_channel else 'tensor'}", exact=True)(build)
    case("w2-a8", exact=False)(lambda rng: low_bit(rng, signed_levels(2), unsigned(8, 1 / 64), False))
    case("w8-a8", exact=False)(lambda rng: low_bit(rng, signed_levels(8), unsigned(8, 0.0123), True))
    case("w2-a4-nonuniform", exact=True)(
        lambda rng: low_bit(rng, signed_levels(2), quantizer((0, 1, 2, 4, 8), 0.25, 1.3), False)
    )


_bit_cases()


@case("ties", exact=True, ties=True)
def _(rng: np.random.Generator) -> nn.Module:
    return nn.Sequential(
        conv(rng, 3, 6, TERNARY, padding=1, scale=0.125),
        batch_norm(rng, 6, dyadic=True),
        unsigned(2),
        conv(rng, 6, 6, POWERS, padding=1, scale=0.5),
        batch_norm(rng, 6, dyadic=True),
        quantizer(TERNARY, 1.0),
        conv(rng, 6, 4, TERNARY, padding=1, scale=0.5),
        batch_norm(rng, 4, dyadic=True),
        nn.ReLU6(),
        unsigned(3),
    )


@case("ties-relu6-negative-affine", exact=True, ties=True)
def _(rng: np.random.Generator) -> nn.Module:
    """A chain with a falling affine behind a clip: the comparison turns twice."""
    return Lambda(
        lambda m, x: m.q(m.bn(F.relu6(m.b(m.c(m.s(x)))))),
        s=stem(rng, 6, unsigned(2, 0.25)),
        c=conv(rng, 6, 6, TERNARY, scale=0.25),
        b=batch_norm(rng, 6, dyadic=True),
        bn=batch_norm(rng, 6, dyadic=True),
        q=unsigned(3, 0.25),
    )


for _stride, _padding, _dilation, _groups, _kernel in (
    (2, 1, 1, 1, 3),
    (1, 0, 1, 1, 3),
    (2, 0, 1, 2, 3),
    (1, 2, 2, 3, 3),
    (1, 1, 1, 6, 3),
    (2, 2, 1, 6, 5),
    (2, 0, 1, 1, 1),
):

    @case(f"conv-s{_stride}p{_padding}d{_dilation}g{_groups}k{_kernel}", exact=True)
    def _(
        rng: np.random.Generator,
        s: int = _stride,
        p: int = _padding,
        d: int = _dilation,
        g: int = _groups,
        k: int = _kernel,
    ) -> nn.Module:
        return nn.Sequential(
            stem(rng),
            conv(rng, 6, 6, POWERS, k, stride=s, padding=p, dilation=d, groups=g, per_channel=True),
            batch_norm(rng, 6),
            unsigned(2),
        )


@case("conv-same-even-kernel", exact=True)
def _(rng: np.random.Generator) -> nn.Module:
    return nn.Sequential(stem(rng), conv(rng, 6, 4, TERNARY, 4, padding="same", dilation=1), unsigned(2))


@case("pad-asymmetric", exact=True)
def _(rng: np.random.Generator) -> nn.Module:
    return Lambda(
        lambda m, x: m.q(m.c(F.pad(m.s(x), (0, 1, 2, 1)))), s=stem(rng), c=conv(rng, 6, 4, stride=2), q=unsigned(3)
    )


@case("pad-image-asymmetric", float_layers=1, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
def _(rng: np.random.Generator) -> nn.Module:
    return Lambda(
        lambda m, x: m.t(m.q(m.c(F.pad(x, (0, 1, 0, 1))))),
        c=float_conv(rng, 3, 6, stride=2),
        q=unsigned(2),
        t=conv(rng, 6, 4),
    )


def residual(rng: np.random.Generator, *, shortcut: nn.Module) -> nn.Module:
    """A stem left as float stream, then one block whose shortcut is given, then a quantizer and a layer."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        x = m.s(x)  # type: ignore[operator]
        return m.last(m.q2(F.relu(m.bn(m.c(m.q(x))) + m.short(x))))  # type: ignore[operator]

    return Lambda(
        forward,
        s=nn.Sequential(conv(rng, 3, 6, padding=1, scale=0.125), batch_norm(rng, 6)),
        q=quantizer(TERNARY, 0.7),
        c=conv(rng, 6, 6, padding=1, scale=0.3),
        bn=batch_norm(rng, 6),
        short=shortcut,
        q2=unsigned(2, 0.4),
        last=conv(rng, 6, 4, POWERS),
    )


case("residual-float-stream")(lambda rng: residual(rng, shortcut=nn.Identity()))
case("residual-quantized-shortcut")(lambda rng: residual(rng, shortcut=unsigned(2, 0.3)))
case("residual-relu-shortcut")(lambda rng: residual(rng, shortcut=nn.Sequential(nn.ReLU(), nn.ReLU6())))
case("residual-conv-shortcut", float_layers=1)(
    lambda rng: residual(rng, shortcut=nn.Sequential(unsigned(2, 0.3), float_conv(rng, 6, 6, 1)))
)
case("residual-steep-prelu-shortcut")(lambda rng: residual(rng, shortcut=nn.LeakyReLU(3.0)))
case("residual-flat-prelu-shortcut")(
    lambda rng: residual(rng, shortcut=Lambda(lambda m, x: m.p(x * 1000 - 1500), p=nn.LeakyReLU(2.0**-12)))
)
case("residual-prelu-shortcut")(lambda rng: residual(rng, shortcut=nn.LeakyReLU(0.1)))


@case("residual-chain", float_layers=2)
def _(rng: np.random.Generator) -> nn.Module:
    """Three blocks on one stream, pre-activation, float first and last layer."""
    blocks = [
        nn.Sequential(batch_norm(rng, 6), unsigned(2, 0.4), conv(rng, 6, 6, padding=1, scale=0.2)) for _ in range(3)
    ]

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        x = m.first(x)  # type: ignore[operator]
        for block in (m.b0, m.b1, m.b2):
            x = x + block(x)  # type: ignore[operator]
        return m.fc(torch.flatten(F.adaptive_avg_pool2d(F.relu(m.bn(x)), 1), 1))  # type: ignore[operator]

    return Lambda(
        forward, first=float_conv(rng, 3, 6, padding=1), b0=blocks[0], b1=blocks[1], b2=blocks[2],
        bn=batch_norm(rng, 6), fc=float_linear(rng, 6, 10),
    )  # fmt: skip


def _option_a(x: Tensor, channels: int) -> Tensor:
    return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, channels // 2, channels // 2))


def option_a(rng: np.random.Generator, stem: nn.Module, quantizer: nn.Module) -> nn.Module:
    """Strided block whose shortcut drops pixels and pads channels."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        x = m.s(x)  # type: ignore[operator]
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return m.last(m.q2(F.relu(m.bn(m.c(m.q(x))) + shortcut)))  # type: ignore[operator]

    return Lambda(
        forward, s=stem, q=quantizer, c=conv(rng, 4, 8, stride=2, padding=1), bn=batch_norm(rng, 8),
        q2=unsigned(2, 0.4), last=conv(rng, 8, 4),
    )  # fmt: skip


case("option-a-codes")(lambda rng: option_a(rng, stem(rng, 4), nn.Identity()))
case("option-a-stream", float_layers=1)(
    lambda rng: option_a(
        rng, nn.Sequential(float_conv(rng, 3, 4, padding=1), batch_norm(rng, 4), nn.ReLU()), unsigned(2, 0.2)
    )
)


for _kind, _pool in (("max", nn.MaxPool2d(2)), ("max-padded", nn.MaxPool2d(3, 2, 1)), ("avg", nn.AvgPool2d(2)),
                     ("avg-padded", nn.AvgPool2d(3, 2, 1))):  # fmt: skip

    @case(f"pool-{_kind}-before", exact=_kind != "avg-padded")
    def _(rng: np.random.Generator, pool: nn.Module = _pool) -> nn.Module:
        return nn.Sequential(
            stem(rng), conv(rng, 6, 6, padding=1), batch_norm(rng, 6), pool, unsigned(2), conv(rng, 6, 4, padding=1)
        )

    @case(f"pool-{_kind}-after", exact=True)
    def _(rng: np.random.Generator, pool: nn.Module = _pool) -> nn.Module:
        act = quantizer(TERNARY, 0.5)
        return nn.Sequential(
            stem(rng),
            conv(rng, 6, 6, padding=1),
            batch_norm(rng, 6),
            act,
            pool,
            conv(rng, 6, 4, padding=1),
            unsigned(2),
        )


POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "max-dilated": lambda x: F.max_pool2d(x, 3, 1, 1, dilation=2),
    "max-ceil": lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    "max-ceil-padded-dilated": lambda x: F.max_pool2d(x, (2, 3), (3, 2), (1, 1), (1, 2), ceil_mode=True),
    "max-adaptive": lambda x: F.adaptive_max_pool2d(x, 2),
    "avg-ceil": lambda x: F.avg_pool2d(x, 3, 2, ceil_mode=True),
    "avg-ceil-padded": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
    "avg-inside": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "avg-inside-ceil": lambda x: F.avg_pool2d(x, (5, 3), (3, 2), (2, 1), ceil_mode=True, count_include_pad=False),
    "avg-adaptive": lambda x: F.adaptive_avg_pool2d(x, (2, 4)),
}

WITH_FACTORS = ("avg-ceil", "avg-ceil-padded", "avg-inside", "avg-inside-ceil")

for _kind, _function in POOLS.items():
    _needs = ("dilation",) * ("dilated" in _kind) + ("factors",) * (_kind in WITH_FACTORS)

    @case(f"pool-{_kind}-before", exact=_kind != "avg-ceil-padded", needs=_needs)
    def _(rng: np.random.Generator, function: Callable[[Tensor], Tensor] = _function) -> nn.Module:
        """Behind a batch norm: the bias must not be averaged with padding that counts."""
        return Lambda(
            lambda m, x: m.last(m.q(function(m.bn(m.c(m.s(x)))))), s=stem(rng), c=conv(rng, 6, 6, padding=1),
            bn=batch_norm(rng, 6), q=unsigned(2), last=conv(rng, 6, 4, padding=1),
        )  # fmt: skip

    @case(f"pool-{_kind}-after", exact=True, needs=_needs)
    def _(rng: np.random.Generator, function: Callable[[Tensor], Tensor] = _function) -> nn.Module:
        return Lambda(
            lambda m, x: m.q2(m.last(function(m.q(m.bn(m.c(m.s(x))))))), s=stem(rng), c=conv(rng, 6, 6, padding=1),
            bn=batch_norm(rng, 6), q=quantizer(TERNARY, 0.5), last=conv(rng, 6, 4, padding=1), q2=unsigned(2),
        )  # fmt: skip


@case("pool-avg-inside-float", float_layers=1, needs=("factors",))
def _(rng: np.random.Generator) -> nn.Module:
    """A float layer reads the mean's integers in units of scale / L."""
    return Lambda(
        lambda m, x: m.f(F.avg_pool2d(m.s(x), 3, 2, 1, count_include_pad=False)), s=stem(rng), f=float_conv(rng, 6, 4)
    )


def l2_norm(rng: np.random.Generator, act: nn.Module, norm: Callable[[Tensor], Tensor], tail: nn.Module) -> nn.Module:
    """SSD's layer between a quantizer and a head: vectors of unit length times a gain per channel."""
    gain = torch.tensor(rng.uniform(0.5, 3, (1, 6, 1, 1)), dtype=torch.float32)
    gain[0, 1] *= -1
    return Lambda(
        lambda m, x: m.tail(norm(m.q(m.bn(m.c(m.s(x))))) * gain), s=stem(rng), c=conv(rng, 6, 6),
        bn=batch_norm(rng, 6), q=act, tail=tail,
    )  # fmt: skip


def _added_eps(x: Tensor) -> Tensor:
    return x / (x.pow(2).sum(dim=1, keepdim=True).sqrt() + 1e-10)


case("l2-norm-codes", needs=("l2_norm",))(
    lambda rng: l2_norm(rng, unsigned(3), F.normalize, nn.Sequential(unsigned(2, 0.4), conv(rng, 6, 4)))
)
case("l2-norm-signed-added", needs=("l2_norm",))(
    lambda rng: l2_norm(rng, quantizer(TERNARY, 0.5), _added_eps, nn.Sequential(unsigned(4, 0.1), conv(rng, 6, 4)))
)
case("l2-norm-into-float-layer", float_layers=1, needs=("l2_norm",))(
    lambda rng: l2_norm(rng, unsigned(8, 1 / 64), F.normalize, float_conv(rng, 6, 4, padding=1))
)
case("l2-norm-output", needs=("l2_norm",))(lambda rng: l2_norm(rng, unsigned(2), F.normalize, nn.Identity()))
case("l2-norm-of-float-activations", float_layers=1, needs=("l2_norm",))(
    lambda rng: l2_norm(rng, nn.ReLU(), F.normalize, float_conv(rng, 6, 4, padding=1))
)


case("l2-norm-calibrated", float_layers=1, calibrate=True, needs=("l2_norm",))(
    lambda rng: l2_norm(rng, nn.ReLU(), F.normalize, float_conv(rng, 6, 4, padding=1))
)


def _head(x: Tensor, values: int) -> Tensor:
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, values)


@case("detector-heads", float_layers=4, needs=("transpose",))
def _(rng: np.random.Generator) -> nn.Module:
    """Two feature maps with float heads of per-channel scales, joined along the anchors; boxes and classes."""

    def forward(m: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        a = m.q(m.c(m.s(x)))  # type: ignore[operator]
        b = m.q2(m.c2(a))  # type: ignore[operator]
        boxes = torch.cat([_head(m.box(a), 4), _head(m.box2(b), 4)], 1)  # type: ignore[operator]
        return boxes, torch.cat([_head(m.cls(a), 3), _head(m.cls2(b), 3)], 1)  # type: ignore[operator]

    return Lambda(
        forward, s=stem(rng), c=conv(rng, 6, 8, padding=1), q=unsigned(2), c2=conv(rng, 8, 8, stride=2),
        q2=unsigned(2), box=float_conv(rng, 8, 8, padding=1), box2=float_conv(rng, 8, 8), cls=float_conv(rng, 8, 6),
        cls2=float_conv(rng, 8, 6, padding=1),
    )  # fmt: skip


@case("detector-heads-five-axes", float_layers=1, needs=("transpose", "reshape"))
def _(rng: np.random.Generator) -> nn.Module:
    """The same rearrangement by a view with one axis for the anchors, on codes: nothing is rounded."""

    def forward(m: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        x = m.s(x)  # type: ignore[operator]
        n, _, rows, cols = x.shape
        codes = x.view(n, 2, 3, rows, cols).permute(0, 3, 4, 1, 2).reshape(n, -1, 3)
        return codes, m.box(x).view(n, 2, 4, rows, cols).permute(0, 3, 4, 1, 2).reshape(n, -1, 4)  # type: ignore[operator]

    return Lambda(forward, s=stem(rng), box=float_conv(rng, 6, 8, padding=1))


@case("transpose-before-quantizer", needs=("transpose",))
def _(rng: np.random.Generator) -> nn.Module:
    """Batch norm of different gains, channels turned into columns and back, then a quantizer."""
    return Lambda(
        lambda m, x: m.last(m.q(F.relu(m.bn(m.c(m.s(x))).permute(0, 2, 3, 1)).permute(0, 3, 1, 2))), s=stem(rng),
        c=conv(rng, 6, 6), bn=batch_norm(rng, 6), q=unsigned(2), last=conv(rng, 6, 4),
    )  # fmt: skip


@case("transpose-rows-and-columns", exact=True, needs=("transpose",))
def _(rng: np.random.Generator) -> nn.Module:
    """Channels stay where they are, so affine and clip stay owed."""
    return Lambda(
        lambda m, x: m.q(m.bn2(F.relu(m.bn(m.c(m.s(x)))).transpose(2, 3))), s=stem(rng),
        c=conv(rng, 6, 6, padding=(0, 1)), bn=batch_norm(rng, 6), bn2=batch_norm(rng, 6), q=unsigned(2),
    )  # fmt: skip


@case("concat-rows", needs=("concat axis",))
def _(rng: np.random.Generator) -> nn.Module:
    """Different affines side by side in each channel: one step for both."""
    return Lambda(
        lambda m, x: m.q(torch.cat([m.a(m.s(x)), m.b(m.s(x))], 2)), s=stem(rng), q=unsigned(2, 0.7),
        a=nn.Sequential(conv(rng, 6, 4), batch_norm(rng, 4)),
        b=nn.Sequential(conv(rng, 6, 4, POWERS), batch_norm(rng, 4)),
    )  # fmt: skip


@case("concat-columns-of-codes", exact=True, needs=("concat axis",))
def _(rng: np.random.Generator) -> nn.Module:
    return Lambda(
        lambda m, x: m.q(m.c(torch.cat([m.qa(m.a(m.s(x))), m.s(x)], -1))), s=stem(rng), q=unsigned(2),
        a=conv(rng, 6, 6, padding=1), qa=unsigned(2), c=conv(rng, 6, 4),
    )  # fmt: skip


@case("split-channels", exact=True)
def _(rng: np.random.Generator) -> nn.Module:
    """Chunks in another order, uneven parts, single channels."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        x = m.bn(m.c(m.s(x)))  # type: ignore[operator]
        first, second = x.chunk(2, 1)
        part, rest = second.split([1, 2], 1)
        one = x[:, 4].unsqueeze(1)
        return m.last(m.q(torch.cat([rest, first, one, part, x.unbind(1)[0].unsqueeze(1)], 1)))  # type: ignore[operator]

    return Lambda(
        forward, s=stem(rng), c=conv(rng, 6, 6), bn=batch_norm(rng, 6), q=unsigned(2), last=conv(rng, 8, 4, POWERS)
    )


@case("inverted-residual")
def _(rng: np.random.Generator) -> nn.Module:
    """MobileNet-V2's block: pointwise, depthwise and linear pointwise convolution, ReLU6, sum, dropout at the end."""
    body = nn.Sequential(
        unsigned(2, 0.5), conv(rng, 4, 12, POWERS, 1), batch_norm(rng, 12, "positive"), nn.ReLU6(), unsigned(2, 1.5),
        conv(rng, 12, 12, groups=12, padding=1), batch_norm(rng, 12, "positive"), nn.ReLU6(), unsigned(2, 1.5),
        conv(rng, 12, 4, kernel=1), batch_norm(rng, 4, "positive"),
    )  # fmt: skip
    return Lambda(
        lambda m, x: m.fc(m.drop(m.q((x := m.s(x)) + m.body(x)).mean([2, 3]))), body=body, drop=nn.Dropout(0.2),
        s=nn.Sequential(conv(rng, 3, 4, padding=1, scale=0.125), batch_norm(rng, 4)), q=unsigned(3, 0.5),
        fc=linear(rng, 4, 6),
    )  # fmt: skip


@case("pool-max-prelu", exact=True)
def _(rng: np.random.Generator) -> nn.Module:
    """Negative gains, then a PReLU, then the maximum: exact only if the falling channels are turned round."""
    return nn.Sequential(
        stem(rng), conv(rng, 6, 6), batch_norm(rng, 6), nn.LeakyReLU(0.125), nn.MaxPool2d(2), unsigned(2)
    )


@case("pool-avg-prelu")
def _(rng: np.random.Generator) -> nn.Module:
    return nn.Sequential(stem(rng), conv(rng, 6, 6), batch_norm(rng, 6), nn.PReLU(6), nn.AvgPool2d(2), unsigned(2))


@case("pool-avg-relu")
def _(rng: np.random.Generator) -> nn.Module:
    return nn.Sequential(stem(rng), conv(rng, 6, 6), batch_norm(rng, 6), nn.ReLU(), nn.AvgPool2d(2), unsigned(2))


@case("global-average", float_layers=1)
def _(rng: np.random.Generator) -> nn.Module:
    return Lambda(
        lambda m, x: m.fc(m.q(m.c(m.s(x))).mean([2, 3])), s=stem(rng), c=conv(rng, 6, 8), q=unsigned(3),
        fc=float_linear(rng, 8, 10),
    )  # fmt: skip


@case("relu-behind-signed-quantizer", float_layers=1)
def _(rng: np.random.Generator) -> nn.Module:
    """Units survive a ReLU on codes, pooling included: the float layer reads exact integers."""
    return Lambda(
        lambda m, x: m.fc(F.avg_pool2d(F.relu(m.q(m.c(m.s(x)))), 6).flatten(1)), s=stem(rng), c=conv(rng, 6, 8),
        q=quantizer(signed_levels(3), 0.3), fc=float_linear(rng, 8, 10),
    )  # fmt: skip


@case("relu-behind-signed-quantizer-low-bit", exact=True)
def _(rng: np.random.Generator) -> nn.Module:
    return nn.Sequential(
        stem(rng), conv(rng, 6, 6), quantizer(TERNARY, 0.3), nn.ReLU(), conv(rng, 6, 4), batch_norm(rng, 4), unsigned(2)
    )


def concat(rng: np.random.Generator, scales: tuple[float, float], tail: nn.Module) -> nn.Module:
    return Lambda(
        lambda m, x: m.tail(torch.cat([m.qa(m.a(m.s(x))), m.qb(m.b(m.s(x)))], 1)),
        s=stem(rng),
        a=nn.Sequential(conv(rng, 6, 4, padding=1), batch_norm(rng, 4)),
        b=nn.Sequential(conv(rng, 6, 4, POWERS, 1), batch_norm(rng, 4)),
        qa=unsigned(2, scales[0]),
        qb=quantizer(TERNARY, scales[1]),
        tail=tail,
    )


case("concat-equal-low-bit", exact=True)(
    lambda rng: concat(rng, (0.5, 0.5), nn.Sequential(conv(rng, 8, 4), unsigned(2)))
)
case("concat-unequal-low-bit")(lambda rng: concat(rng, (0.5, 0.3), nn.Sequential(conv(rng, 8, 4), unsigned(2))))
case("concat-unequal-float", float_layers=1)(lambda rng: concat(rng, (0.5, 0.3), float_conv(rng, 8, 4, padding=1)))
case("concat-unequal-affine-float", float_layers=1)(
    lambda rng: concat(rng, (0.5, 0.3), nn.Sequential(batch_norm(rng, 8, "positive"), float_conv(rng, 8, 4, padding=1)))
)
case("concat-relu-float", float_layers=1)(
    lambda rng: concat(rng, (0.5, 0.3), nn.Sequential(nn.ReLU(), float_conv(rng, 8, 4, padding=1)))
)


case("concat-unequal-grouped")(
    lambda rng: concat(rng, (0.5, 0.3), nn.Sequential(conv(rng, 8, 4, POWERS, groups=2), unsigned(2)))
)


@case("layers-without-quantizer", float_layers=1)
def _(rng: np.random.Generator) -> nn.Module:
    """Per-channel scales straight into the next layer: wide fixed point, not one product a channel."""
    return nn.Sequential(
        stem(rng), conv(rng, 6, 8, per_channel=True), conv(rng, 8, 12, POWERS, 1), nn.AvgPool2d(6), nn.Flatten(),
        float_linear(rng, 12, 10),
    )  # fmt: skip


@case("concat-unequal-shifted-low-bit")
def _(rng: np.random.Generator) -> nn.Module:
    """2 x + 0.25 on channels of two units in front of a padded low-bit layer: the border needs each channel's unit."""
    return concat(
        rng, (0.5, 0.3), Lambda(lambda m, x: m.q(m.c(x * 2 + 0.25)), c=conv(rng, 8, 4, padding=1), q=unsigned(2))
    )


@case("concat-before-quantizer", exact=True)
def _(rng: np.random.Generator) -> nn.Module:
    return Lambda(
        lambda m, x: m.q(torch.cat([m.a(m.s(x)), m.b(m.s(x)), m.s(x)], 1)),
        s=stem(rng),
        a=nn.Sequential(conv(rng, 6, 4, padding=1), batch_norm(rng, 4)),
        b=nn.Sequential(conv(rng, 6, 4, POWERS, 1), batch_norm(rng, 4)),
        q=unsigned(2, 0.7),
    )


@case("concat-prelu")
def _(rng: np.random.Generator) -> nn.Module:
    return Lambda(
        lambda m, x: m.q(torch.cat([m.a(m.s(x)), m.b(m.s(x))], 1)),
        s=stem(rng),
        a=nn.Sequential(conv(rng, 6, 4, padding=1), batch_norm(rng, 4), nn.PReLU(4)),
        b=nn.Sequential(conv(rng, 6, 4, POWERS, 1), batch_norm(rng, 4), nn.Hardtanh(-0.7, 0.9)),
        q=unsigned(2, 0.7),
    )


for _name, _chain in {
    "relu": (nn.ReLU(),),
    "relu6": (nn.ReLU6(inplace=True),),
    "hardtanh": (nn.Hardtanh(-0.3, 0.8),),
    "leaky": (nn.LeakyReLU(0.01, inplace=True),),
}.items():

    @case(f"chain-{_name}", exact=True)
    def _(rng: np.random.Generator, chain: tuple[nn.Module, ...] = _chain) -> nn.Module:
        return nn.Sequential(
            stem(rng), conv(rng, 6, 6, bias=True), *chain, batch_norm(rng, 6), quantizer(signed_levels(2), 0.2)
        )


@case("chain-prelu", exact=True)
def _(rng: np.random.Generator) -> nn.Module:
    prelu = nn.PReLU(6)
    prelu.weight.data = torch.tensor([0.0, 0.25, 1.0, 2.5, 0.3, 1e-6])
    return nn.Sequential(
        stem(rng), conv(rng, 6, 6, bias=True), batch_norm(rng, 6), prelu, batch_norm(rng, 6), nn.ReLU6(), unsigned(2)
    )


@case("sign-zero-padding", exact=True)
def _(rng: np.random.Generator) -> nn.Module:
    return low_bit(rng, BINARY, quantizer(BINARY, 1.0), False)


for _bits in (2, 4):

    @case(f"lsq-plus-offset-a{_bits}")
    def _(rng: np.random.Generator, bits: int = _bits) -> nn.Module:
        """Zero is no level, and offset and scale have no common step: padding needs the border correction."""
        return low_bit(rng, signed_levels(2), quantizer(tuple(range(2**bits)), 0.4, offset=-0.1734567), bits == 4)


@case("lsq-plus-offset-strided")
def _(rng: np.random.Generator) -> nn.Module:
    act = quantizer(tuple(range(4)), 0.4, offset=-0.1734567)
    return nn.Sequential(
        stem(rng, 6, act), conv(rng, 6, 6, POWERS, 5, stride=2, padding=2, groups=2), batch_norm(rng, 6), unsigned(2)
    )


@case("linear-stack", shape=(12,), exact=True)
def _(rng: np.random.Generator) -> nn.Module:
    return nn.Sequential(
        linear(rng, 12, 16), quantizer(TERNARY, 9.0), linear(rng, 16, 16, POWERS), nn.ReLU(), unsigned(4, 0.3),
        linear(rng, 16, 8, BINARY),
    )  # fmt: skip


@case("flatten-linear", exact=True)
def _(rng: np.random.Generator) -> nn.Module:
    return nn.Sequential(
        stem(rng, 4), nn.MaxPool2d(2), nn.Flatten(), linear(rng, 64, 10), unsigned(2), linear(rng, 10, 6)
    )


def edges(rng: np.random.Generator) -> nn.Module:
    return nn.Sequential(
        float_conv(rng, 3, 6, padding=1, bias=False), batch_norm(rng, 6), unsigned(2, 0.4),
        conv(rng, 6, 8, padding=1, stride=2), batch_norm(rng, 8), nn.ReLU(), unsigned(2, 0.4),
        nn.AvgPool2d(4), nn.Flatten(), float_linear(rng, 8, 10),
    )  # fmt: skip


for _edge in (8, 16, None):
    case(
        f"edges-{_edge or 'max'}",
        edge_bits=_edge,
        float_layers=2,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )(edges)


@case("weight-only", calibrate=True, float_layers=2, mean=(0.5, 0.4, 0.3), std=(0.25, 0.25, 0.2))
def _(rng: np.random.Generator) -> nn.Module:
    """Float activations throughout: every layer gets a calibrated 8-bit quantizer."""
    return Lambda(
        lambda m, x: m.fc(m.body(m.first(x)).mean([2, 3])),
        first=nn.Sequential(float_conv(rng, 3, 6, padding=1), batch_norm(rng, 6), nn.ReLU()),
        body=nn.Sequential(
            conv(rng, 6, 6, padding=1),
            batch_norm(rng, 6),
            conv(rng, 6, 8, POWERS, groups=2),
            batch_norm(rng, 8),
            nn.ReLU6(),
        ),
        fc=float_linear(rng, 8, 10),
    )


@case("weight-only-uncalibrated", float_layers=2)
def _(rng: np.random.Generator) -> nn.Module:
    """The same without data: layers read 16-bit fixed point."""
    return Lambda(
        lambda m, x: m.fc(m.body(m.first(x)).mean([2, 3])),
        first=nn.Sequential(float_conv(rng, 3, 6, padding=1), batch_norm(rng, 6), nn.ReLU()),
        body=nn.Sequential(conv(rng, 6, 6, padding=1), batch_norm(rng, 6), nn.ReLU()),
        fc=float_linear(rng, 6, 10),
    )


@case("two-outputs", float_layers=2)
def _(rng: np.random.Generator) -> nn.Module:
    def forward(m: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = m.q(m.c(m.s(x)))  # type: ignore[operator]
        return m.box(features), m.fc(features.mean([2, 3])), features  # type: ignore[operator]

    return Lambda(
        forward, s=stem(rng), c=conv(rng, 6, 8), q=unsigned(2), box=float_conv(rng, 8, 4, 1), fc=float_linear(rng, 8, 3)
    )


@case("shared-module", exact=True)
def _(rng: np.random.Generator) -> nn.Module:
    return Lambda(lambda m, x: m.q(m.c(m.q(m.c(m.s(x))))), s=stem(rng), c=conv(rng, 6, 6, padding=1), q=unsigned(2))

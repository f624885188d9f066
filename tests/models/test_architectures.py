"""Networks by name: sizes, shortcuts, training and export."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qexport.errors import OptionError
from qexport.models.papers import SMALL_INPUTS
from qexport.models.quantizers import QNQuantizer, QuantConv2d, QuantLinear, SoftQuantizer
from qexport.models.registry import architectures, build, resnet_name
from qexport.models.resnet_cifar import OptionAShortcut

SETTINGS = [
    ("daq-resnet20", {}),
    ("daq-resnet20", {"weight_bits": 1}),
    ("daq-resnet20", {"weight_bits": 2, "act_bits": 4}),
    ("qn-resnet20", {}),
    ("qn-resnet20", {"weight_levels": (-4, -2, -1, 0, 1, 2, 4)}),
    ("qn-resnet20", {"weight_levels": (-1, 0, 1), "act_levels": (0, 1, 2, 3)}),
    ("qn-digits", {}),
    ("qn-alexnet", {**SMALL_INPUTS["alexnet"].arguments, "weight_levels": (-1, 0, 1), "act_levels": (0, 1)}),
    ("daq-alexnet", {**SMALL_INPUTS["alexnet"].arguments, "weight_bits": 2, "act_bits": 2}),
    ("qn-resnet18", {"num_classes": 10, "widths": (8, 8, 16, 16), "weight_levels": (-1, 1), "act_levels": (0, 1)}),
    ("daq-resnet50", {"num_classes": 10, "widths": (8, 8, 16, 16), "weight_bits": 1, "act_bits": 2}),
    ("qn-mobilenet_v2", {"num_classes": 10, "width": 0.25, "weight_levels": (-1, 0, 1), "act_levels": (0, 1, 2, 3)}),
    ("daq-mobilenet_v2", {"num_classes": 10, "width": 0.25, "weight_bits": 4, "act_bits": 4}),
    ("qn-vgg_small", {"weight_levels": (-1, 1), "act_levels": (0, 1)}),
    ("daq-vgg16", {"num_classes": 10, "pooled": 1, "hidden": 16, "batch_norm": True, "weight_bits": 2, "act_bits": 2}),
]


def image_of(name: str, n: int) -> torch.Tensor:
    size = 64 if any(part in name for part in ("alexnet", "resnet18", "resnet50", "mobilenet")) else 32
    return torch.randn(n, 1, 8, 8) if name == "qn-digits" else torch.randn(n, 3, size, size)


DEEP = ("mobilenet", "resnet50")
"""Networks of so many operators that their export takes long."""


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        pytest.param(name, arguments, marks=[pytest.mark.slow] if any(part in name for part in DEEP) else [])
        for name, arguments in SETTINGS
    ],
    ids=str,
)
def test_trains_and_exports_with_dynamic_batch(name: str, arguments: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = build(name, **arguments)
    model.train()(image_of(name, 2)).square().sum().backward()
    silent = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not silent
    model.eval()
    exported = torch.export.export(
        model, (image_of(name, 2),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    ).module()
    x = image_of(name, 5)
    with torch.no_grad():
        assert torch.equal(exported(x), model(x))
        assert model(x).shape == (5, 10)


def test_digits_network_is_small() -> None:
    model = build("qn-digits")
    assert sum(p.numel() for p in model.parameters()) < 60_000
    assert sum(isinstance(m, SoftQuantizer) for m in model.modules()) == 6 + 7


@pytest.mark.parametrize(("depth", "n"), [(20, 18), (32, 30), (56, 54)])
def test_depth_is_in_the_name(depth: int, n: int) -> None:
    with torch.device("meta"):
        model = build(f"qn-resnet{depth}", weight_levels=(-1, 1))
    assert sum(isinstance(m, QuantConv2d) for m in model.modules()) == n
    assert resnet_name("qn", ((depth - 2) // 6,) * 3) == f"qn-resnet{depth}"
    assert resnet_name("daq", (1, 2)) == "daq-resnet"


def test_option_a_shortcut_pads_both_sides() -> None:
    x = torch.arange(2 * 4 * 4, dtype=torch.float32).reshape(1, 2, 4, 4)
    y = OptionAShortcut(2, 6, 2)(x)
    assert y.shape == (1, 6, 2, 2)
    assert torch.equal(y[:, 2:4], x[:, :, ::2, ::2])
    assert not y[:, :2].any() and not y[:, 4:].any()


def test_option_a_shortcut_refuses_odd_widths() -> None:
    with pytest.raises(OptionError, match="same number of channels on both sides"):
        OptionAShortcut(2, 5, 2)


class Recorder(nn.Module):
    """Stands for a quantizer and remembers what it was called with."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x
        return x * 2


@pytest.mark.parametrize("linear", [False, True])
def test_layers_pass_the_parameter_itself_to_the_weight_quantizer(linear: bool) -> None:
    weight, activation = Recorder(), Recorder()
    layer: QuantConv2d | QuantLinear
    if linear:
        layer = QuantLinear(4, 2, weight_quantizer=weight, input_quantizer=activation, output_scale=True)
        x = torch.randn(3, 4)
        with torch.no_grad():
            layer.output_scale.fill_(-3.0)  # type: ignore[union-attr]
        plain = 3.0 * nn.functional.linear(2 * x, 2 * layer.weight, layer.bias)
    else:
        layer = QuantConv2d(4, 2, 3, bias=True, weight_quantizer=weight, input_quantizer=activation, output_scale=True)
        x = torch.randn(3, 4, 5, 5)
        with torch.no_grad():
            layer.output_scale.fill_(-3.0)  # type: ignore[union-attr]
        plain = 3.0 * nn.functional.conv2d(2 * x, 2 * layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), plain)
    assert weight.seen is layer.weight and activation.seen is x


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet18", {}, "unknown architecture[\\s\\S]*qn-resnet20[\\s\\S]*--model package.module:factory"),
        ("qn-resnet20", {"bits": 2}, "does not know these arguments[\\s\\S]*bits[\\s\\S]*weight_levels"),
        ("qn-resnet", {"blocks": (1, 1), "widths": (4,)}, "do not fit together"),
        ("qn-resnet", {"blocks": (10**9,), "widths": (4,)}, "at most 1000 blocks"),
        ("qn-resnet", {"blocks": (), "widths": ()}, "cannot be built"),
        ("qn-resnet", {"num_classes": -1}, "cannot be built"),
        ("qn-resnet", {"weight_levels": (1, 0)}, "ascending integers"),
        ("daq-resnet", {"weight_bits": 9}, "bit width out of range"),
    ],
)
def test_bad_architectures(name: str, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        build(name, **arguments)


def test_names_are_sorted_and_buildable() -> None:
    assert list(architectures()) == sorted(architectures())
    for name in architectures():
        with torch.device("meta"):
            assert isinstance(build(name), nn.Module)


def test_activation_quantizer_after_the_stem() -> None:
    model = build("qn-digits")
    assert isinstance(model.quan0, QNQuantizer)


def test_small_ssd300_has_a_prior_for_every_row() -> None:
    """Locations, scores and priors agree for every number of extra maps."""
    for extras, size in ((0, 64), (2, 80), (4, 300)):
        with torch.device("meta"):
            model = build("qn-ssd300_vgg16", extras=extras, image_size=size).eval()
            locations, scores = model(torch.empty(1, 3, size, size))
        assert locations.shape[1] == scores.shape[1] == model.detector.n_priors
    assert model.detector.n_priors == 8732
    with pytest.raises(OptionError, match="no such number of extra maps"):
        build("qn-ssd300_vgg16", extras=5)


@pytest.mark.parametrize(("act_levels", "expected"), [((0, 1), (-1, 1)), ((0, 1, 2, 3), (-2, -1, 0, 1))])
def test_bottlenecks_keep_both_signs(act_levels: tuple[int, ...], expected: tuple[int, ...]) -> None:
    model = build("qn-mobilenet_v2", width=0.25, act_levels=act_levels)
    assert model.features[3].quan.levels == expected  # type: ignore[union-attr]
    daq = build("daq-mobilenet_v2", width=0.25, act_bits=2)
    assert [m.input_quantizer.signed for m in daq.features[3].modules() if isinstance(m, QuantConv2d)] == [  # type: ignore[union-attr]
        True,
        False,
        False,
    ]

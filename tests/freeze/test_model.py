"""A frozen network equals the original bit for bit, and torch.export keeps its steps whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from qexport.errors import FreezeError
from qexport.freeze.model import FrozenModel, freeze
from qexport.freeze.step_op import FrozenActivation, FrozenWeight
from qexport.models.quantizers import (
    DAQActivationQuantizer,
    DAQWeightQuantizer,
    QNQuantizer,
    QuantConv2d,
    initialise_from_samples,
    set_soft,
)

EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(33, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class UserLSQ(nn.Module):
    """A quantizer class of a user's, for weights and activations alike."""

    def __init__(self, scale: float, lowest: int, highest: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.lowest, self.highest = lowest, highest

    def forward(self, x: Tensor) -> Tensor:
        return torch.clamp(x / self.scale, self.lowest, self.highest).round() * self.scale


class UserSign(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sign(x)


class UserPowersOfTwo(nn.Module):
    """Levels 0, 1/8, 1/4, 1/2, 1 with uneven thresholds."""

    def forward(self, x: Tensor) -> Tensor:
        thresholds = torch.tensor([0.03, 0.2, 0.41, 0.8])
        return torch.tensor([0.0, 0.125, 0.25, 0.5, 1.0])[torch.bucketize(x, thresholds)]


USER_TYPES = (UserLSQ, UserSign, UserPowersOfTwo)


class UserConv(nn.Conv2d):
    def __init__(self, n_in: int, n_out: int, weight_quantizer: nn.Module) -> None:
        super().__init__(n_in, n_out, 3, padding=1, bias=False)
        self.weight_quantizer = weight_quantizer

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight_quantizer(self.weight), padding=1)


class Library(nn.Module):
    """The library's own quantizers with a shared, an unused and a dropped one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.shared = QNQuantizer([0, 1, 2, 3])
        self.unused = QNQuantizer([0, 1])
        self.dropped = QNQuantizer([0, 1])
        self.daq = QuantConv2d(
            16,
            32,
            3,
            input_quantizer=DAQActivationQuantizer(2),
            weight_quantizer=DAQWeightQuantizer(1),
            output_scale=True,
        )
        self.qn = QuantConv2d(
            32, 32, 3, input_quantizer=self.shared, weight_quantizer=QNQuantizer([-4, -2, -1, 0, 1, 2, 4])
        )
        initialise_from_samples(self.qn.weight_quantizer, self.qn.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        self.dropped(x)
        return self.qn(torch.relu(self.daq(self.shared(x)))).mean((2, 3))


class User(nn.Module):
    """Quantizers the library has never seen."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = UserConv(3, 16, UserLSQ(0.03, -8, 7))
        self.quantizers = nn.ModuleList([UserLSQ(0.11, 0, 3), UserSign(), UserPowersOfTwo()])
        self.body = UserConv(16, 16, UserSign())
        self.head = UserConv(16, 10, UserLSQ(0.02, -2, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.quantizers[0](torch.relu(self.stem(x)))
        x = self.quantizers[1](self.body(x))
        return self.head(self.quantizers[2](self.stem(x[:, :3]))).amax((2, 3))


def built(network: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return network()


def assert_same(model: nn.Module, frozen: FrozenModel, x: Tensor = IMAGES) -> None:
    with torch.no_grad():
        assert torch.equal(model.eval()(x), frozen.module(x))


def test_library_quantizers() -> None:
    model = built(Library)
    frozen = freeze(model, EXAMPLE)
    assert_same(model, frozen)
    assert set(frozen.activations) == {"shared", "dropped", "daq.input_quantizer"}
    assert frozen.weights["daq.weight_quantizer"].level_set == (-1, 1)
    assert frozen.weights["qn.weight_quantizer"].level_set == (-4, -2, -1, 0, 1, 2, 4)
    assert frozen.unused == ("unused",)
    assert frozen.float_weights == ()
    assert set(frozen.near_thresholds) == set(frozen.weights)
    assert isinstance(frozen.module.qn.input_quantizer, FrozenActivation)
    assert frozen.module.qn.input_quantizer is frozen.module.shared
    assert isinstance(frozen.module.unused, QNQuantizer)


def test_user_quantizers() -> None:
    model = built(User)
    frozen = freeze(model, EXAMPLE, quantizer_types=USER_TYPES)
    assert_same(model, frozen)
    assert set(frozen.activations) == {"quantizers.0", "quantizers.1", "quantizers.2"}
    assert frozen.activations["quantizers.2"].levels.tolist() == [0, 1, 2, 4, 8]
    assert frozen.weights["stem.weight_quantizer"].level_set == tuple(range(-6, 7))
    assert float(frozen.weights["stem.weight_quantizer"].scale) == pytest.approx(0.03, rel=1e-7)
    assert frozen.weights["body.weight_quantizer"].level_set == (-1, 1)


@pytest.mark.parametrize(("network", "n_steps"), [(Library, 3), (User, 3)])
def test_export_keeps_steps_and_dynamic_batch(network: Callable[[], nn.Module], n_steps: int) -> None:
    frozen = freeze(built(network), EXAMPLE, quantizer_types=USER_TYPES if network is User else ())
    program = torch.export.export(frozen.module, (EXAMPLE,), dynamic_shapes=({0: torch.export.Dim("n")},))
    calls = [str(node.target) for node in program.graph.nodes if node.op == "call_function" and node.users]
    assert calls.count("qexport.step.default") == n_steps
    assert not any("round" in call or "clamp" in call or "sign" in call for call in calls)
    with torch.no_grad():
        assert torch.equal(program.module()(IMAGES), frozen.module(IMAGES))


def test_original_is_left_alone() -> None:
    model = built(Library)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    freeze(model, EXAMPLE)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_soft_evaluation_is_switched_off() -> None:
    model = built(Library)
    set_soft(model, True)
    frozen = freeze(model, EXAMPLE)
    set_soft(model, False)
    assert_same(model, frozen)


def test_channels_last_weights_keep_their_layout() -> None:
    model = built(Library).to(memory_format=torch.channels_last)
    images = IMAGES.to(memory_format=torch.channels_last)
    frozen = freeze(model, EXAMPLE.to(memory_format=torch.channels_last))
    assert frozen.module.qn.weight_quantizer.values.is_contiguous(memory_format=torch.channels_last)
    assert_same(model, frozen, images)


def test_root_may_be_a_quantizer() -> None:
    frozen = freeze(UserSign(), EXAMPLE, quantizer_types=(UserSign,))
    assert isinstance(frozen.module, FrozenActivation)
    assert frozen.activations[""].levels.tolist() == [-1, 0, 1]


def test_parametrized_weight() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    parametrize.register_parametrization(model[0], "weight", UserLSQ(0.05, -2, 1))
    frozen = freeze(model, EXAMPLE, quantizer_types=(UserLSQ,))
    assert_same(model, frozen)
    assert isinstance(frozen.module[0].parametrizations.weight[0], FrozenWeight)
    assert list(frozen.weights) == ["0.parametrizations.weight.0"]


class Views(nn.Module):
    """Hands its quantizer a detached view of the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(192, 10)
        self.quantizer = DAQWeightQuantizer(2)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x.flatten(1), self.quantizer(self.linear.weight.data.t()).t(), self.linear.bias)


def test_view_of_a_parameter_is_a_weight() -> None:
    model = built(Views)
    frozen = freeze(model, EXAMPLE)
    assert_same(model, frozen)
    assert frozen.weights["quantizer"].levels.shape == (192, 10)


class SharedByWeights(nn.Module):
    def __init__(self, quantizer: nn.Module) -> None:
        super().__init__()
        self.first = UserConv(3, 8, quantizer)
        self.second = UserConv(8, 8, quantizer)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.second.weight_quantizer(self.first(x)))


def test_elementwise_quantizer_shared_by_weights_and_activations() -> None:
    model = SharedByWeights(UserSign())
    frozen = freeze(model, EXAMPLE, quantizer_types=(UserSign,))
    assert_same(model, frozen)
    assert list(frozen.activations) == ["first.weight_quantizer"]
    assert not frozen.weights
    assert frozen.module.first.weight_quantizer is frozen.module.second.weight_quantizer


def test_standardising_quantizer_must_not_be_shared() -> None:
    with pytest.raises(FreezeError, match="one quantizer serves 2 weight tensors and activations") as error:
        freeze(SharedByWeights(DAQWeightQuantizer(2)), EXAMPLE)
    assert "its own instance" in str(error.value)


class Module(nn.Module):
    """Any function of (module, x) with a quantizer inside."""

    def __init__(self, quantizer: nn.Module, function: Callable[[nn.Module, Tensor], object]) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(self.quantizer, x)


def test_weight_that_is_not_finite() -> None:
    model = built(Library)
    with torch.no_grad():
        model.qn.weight_quantizer.alpha.fill_(torch.nan)
    with pytest.raises(FreezeError, match=r"qn\.weight_quantizer: a weight is not finite"):
        freeze(model, EXAMPLE)


def test_quantizer_that_leaves_weights_float() -> None:
    model = UserConv(3, 8, nn.Identity())
    frozen = freeze(model, EXAMPLE, quantizer_types=(nn.Identity,))
    assert_same(model, frozen)
    assert frozen.float_weights == ("weight_quantizer",)
    assert not frozen.weights


def test_outputs_in_containers() -> None:
    model = Module(UserSign(), lambda q, x: {"a": [q(x), (x,)], "b": 3})
    assert freeze(model, EXAMPLE, quantizer_types=(UserSign,)).activations["quantizer"].n_steps == 2

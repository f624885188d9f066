"""The layout of the public DAQ code, on a small network made here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from qexport.checkpoints import load_checkpoint
from qexport.errors import CheckpointError, OptionError


@pytest.fixture
def state() -> dict[str, Tensor]:
    """One stage of one block, 4 channels; every second bound differs so that mix-ups show."""
    torch.manual_seed(0)
    tensors = {
        "conv1.weight": torch.randn(4, 3, 3, 3),
        "linear.weight": torch.randn(10, 4),
        "linear.bias": torch.randn(10),
    }
    for i, bn in enumerate(("bn1", "bn2", "layer1.block_0.0.bn1", "layer1.block_0.0.bn2")):
        for j, key in enumerate(("weight", "bias", "running_mean", "running_var")):
            tensors[f"{bn}.{key}"] = torch.full((4,), 0.5 + i + 0.1 * j)
    for i, conv in enumerate(("layer1.block_0.0.conv1", "layer1.block_0.0.conv2")):
        tensors[f"{conv}.weight"] = torch.randn(4, 4, 3, 3)
        for j, key in enumerate(("uW", "lW", "uA", "lA", "beta")):
            tensors[f"{conv}.{key}"] = torch.tensor((-1.0 if key == "lW" else 1.0) * (2 + i + 0.25 * j))
        tensors[f"{conv}.init"] = torch.tensor(0)
    return tensors


def write(tmp_path: Path, state: dict[str, Tensor]) -> Path:
    path = tmp_path / "checkpoint.pth"
    torch.save({"state_dict": state, "optimizer_dict": {"state": {}}, "epoch": 3}, path)
    return path


def test_bounds_land_in_their_quantizers(tmp_path: Path, state: dict[str, Tensor]) -> None:
    model = load_checkpoint(write(tmp_path, state), weight_bits=2, act_bits=3).model
    conv = model.get_submodule("stages.layer1.0.conv2")
    assert conv.weight_quantizer.upper.item() == 3.0 and conv.weight_quantizer.lower.item() == -3.25
    assert conv.input_quantizer.upper.item() == 3.5 and conv.output_scale.item() == 4.0
    assert conv.weight_quantizer.n_steps == 3 and conv.input_quantizer.n_steps == 7


def test_safetensors(tmp_path: Path, state: dict[str, Tensor]) -> None:
    x = torch.randn(2, 3, 32, 32)
    expected = load_checkpoint(write(tmp_path, state), weight_bits=1, act_bits=1).model
    save_file(state, tmp_path / "checkpoint.safetensors")
    checkpoint = load_checkpoint(tmp_path / "checkpoint.safetensors", weight_bits=1, act_bits=1)
    assert checkpoint.family == "daq"
    with torch.no_grad():
        assert torch.equal(checkpoint.model(x), expected(x))


DEFECTS = [
    ("uW", torch.tensor(-9.0), CheckpointError, r"leave no interval[\s\S]*conv1 \(lW -2.25, uW -9, uA 2.5\)"),
    ("uA", torch.tensor(0.0), CheckpointError, r"leave no interval[\s\S]*0 < uA"),
    ("uA", torch.tensor(float("nan")), CheckpointError, r"leave no interval"),
    ("uA", torch.tensor(2.0**31), CheckpointError, r"some layers only[\s\S]*uA is 2\^31 in layer1.block_0.0.conv1"),
    ("uA", torch.ones(2), CheckpointError, r"missing or no scalars[\s\S]*conv1.uA"),
    ("lW", None, CheckpointError, r"missing or no scalars[\s\S]*conv1.lW"),
    ("init", torch.tensor(1), CheckpointError, r"never initialised[\s\S]*layer1.block_0.0.conv1\n"),
    ("beta", None, CheckpointError, r"missing: layer1.block_0.0.conv1.beta\n"),
    ("beta", torch.tensor(float("inf")), CheckpointError, r"layer1.block_0.0.conv1.beta \(1\)"),
    ("zeta", torch.tensor(1.0), CheckpointError, r"surplus: layer1.block_0.0.conv1.zeta\n"),
]


@pytest.mark.parametrize(
    ("key", "value", "kind", "message"), DEFECTS, ids=[f"{d[0]}-{i}" for i, d in enumerate(DEFECTS)]
)
def test_defects_are_named(
    tmp_path: Path, state: dict[str, Tensor], key: str, value: Tensor | None, kind: type[Exception], message: str
) -> None:
    name = f"layer1.block_0.0.conv1.{key}"
    if value is None:
        del state[name]
    else:
        state[name] = value
    with pytest.raises(kind, match=message):
        load_checkpoint(write(tmp_path, state), weight_bits=1, act_bits=1)


def test_bits_out_of_range(tmp_path: Path, state: dict[str, Tensor]) -> None:
    with pytest.raises(OptionError, match="bit width out of range"):
        load_checkpoint(write(tmp_path, state), weight_bits=1, act_bits=9)


def test_options_of_another_family(tmp_path: Path, state: dict[str, Tensor]) -> None:
    with pytest.raises(OptionError, match=r"--weight-levels: checkpoints of the family 'daq' have no use"):
        load_checkpoint(write(tmp_path, state), weight_bits=1, act_bits=1, weight_levels=(-1, 1))
    with pytest.raises(OptionError, match=r"--qn-biases: checkpoints of the family 'daq'"):
        load_checkpoint(write(tmp_path, state), weight_bits=1, act_bits=1, qn_biases="b.json")


PREPROCESSING = [
    ({"mean": (0.5,) * 3}, "mean and std belong together"),
    ({"mean": (0.5,) * 3, "std": (0.5, 0.5)}, "3 finite numbers each"),
    ({"mean": (0.5,) * 3, "std": (0.5, 0.0, 0.5)}, "std positive"),
    ({"mean": (float("nan"),) * 3, "std": (0.5,) * 3}, "finite"),
    ({"input_shape": (1, 32, 32)}, r"another number of channels[\s\S]*C = 3"),
    ({"input_shape": (3, 32)}, "three positive integers"),
    ({"input_shape": (3, 0, 32)}, "three positive integers"),
]


@pytest.mark.parametrize(("arguments", "message"), PREPROCESSING)
def test_bad_preprocessing(
    tmp_path: Path, state: dict[str, Tensor], arguments: dict[str, tuple[float, ...]], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        load_checkpoint(write(tmp_path, state), weight_bits=1, act_bits=1, **arguments)  # type: ignore[arg-type]


def test_stated_preprocessing_is_kept(tmp_path: Path, state: dict[str, Tensor]) -> None:
    checkpoint = load_checkpoint(
        write(tmp_path, state), weight_bits=1, act_bits=1, input_shape=(3, 64, 48), mean=[0.5] * 3, std=[0.25] * 3
    )
    assert checkpoint.input_shape == (3, 64, 48)
    assert checkpoint.mean == (0.5,) * 3 and checkpoint.std == (0.25,) * 3

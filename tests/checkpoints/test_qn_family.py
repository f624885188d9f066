"""The layouts of the public Quantization Networks code, on small networks made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from qexport.checkpoints import load_checkpoint
from qexport.errors import CheckpointError, OptionError, QExportError
from qexport.models.quantizers import QNQuantizer, QuantConv2d, set_temperature
from qexport.models.registry import build


def qn_content(weight_levels: tuple[int, ...] | None, act_levels: tuple[int, ...] | None) -> dict[str, Any]:
    """A checkpoint as the public code would write it, two stages of one block, with trained-looking numbers."""
    torch.manual_seed(0)
    model = build("qn-resnet", blocks=(1, 1), widths=(4, 8), weight_levels=weight_levels, act_levels=act_levels)
    state: dict[str, torch.Tensor] = {}
    lists: dict[str, list[Any]] = {"alpha": [], "beta": [], "bias": []}
    for name, tensor in model.state_dict().items():
        name = name.removeprefix("stages.")
        tensor = tensor + 0.25 if tensor.is_floating_point() else tensor
        if ".weight_quantizer." in name:
            key = name.rsplit(".", 1)[1]
            key, value = ("bias", tensor.tolist()) if key == "biases" else (key, tensor.reshape(1))
            lists[key].append(value)
        else:
            state[name] = tensor.reshape(1, 1) if "quan" in name and tensor.dim() == 0 else tensor
            if name.endswith(".biases"):
                state[name.replace("biases", "scales")] = torch.ones_like(tensor)
    return {"state_dict": state, "optimizer": {"lr": 0.1}, **lists}


@pytest.fixture
def content() -> dict[str, Any]:
    return qn_content((-1, 0, 1), (0, 1, 2, 3))


def write(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "checkpoint.pth"
    torch.save(content, path)
    return path


def test_every_number_lands_where_it_belongs(tmp_path: Path, content: dict[str, Any]) -> None:
    content["alpha"] = [torch.tensor([float(i)]) for i in range(1, 5)]
    content["state_dict"]["layer2.0.quan1.alpha"] = torch.tensor([[0.125]])
    checkpoint = load_checkpoint(write(tmp_path, content), temperature=30.0)
    assert checkpoint.arch == "qn-resnet" and checkpoint.temperature == 30.0
    convs = [m for m in checkpoint.model.modules() if isinstance(m, QuantConv2d)]
    quantizers = [m for m in checkpoint.model.modules() if isinstance(m, QNQuantizer)]
    assert [c.weight_quantizer.alpha.item() for c in convs] == [1.0, 2.0, 3.0, 4.0]  # type: ignore[union-attr]
    assert checkpoint.model.get_submodule("stages.layer2.0.quan1").alpha.item() == 0.125
    assert {q.temperature for q in quantizers} == {30.0} and len(quantizers) == 4 + 5
    assert not any(p.is_meta for p in checkpoint.model.parameters())


@pytest.mark.parametrize(("n", "levels"), [(2, (-1, 1)), (3, (-1, 0, 1)), (5, (-2, -1, 0, 1, 2))])
def test_levels_inferred_from_the_number_of_thresholds(tmp_path: Path, n: int, levels: tuple[int, ...]) -> None:
    checkpoint = load_checkpoint(write(tmp_path, qn_content(levels, None)))
    assert len(levels) == n
    quantizers = [m for m in checkpoint.model.modules() if isinstance(m, QNQuantizer)]
    assert {q.levels for q in quantizers} == {levels} and len(quantizers) == 4


def test_activations_only(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(write(tmp_path, qn_content(None, (0, 1))))
    assert checkpoint.family == "qn"
    assert {m.levels for m in checkpoint.model.modules() if isinstance(m, QNQuantizer)} == {(0, 1)}


def test_fractional_activation_gaps_move_into_alpha(tmp_path: Path, content: dict[str, Any]) -> None:
    state = content["state_dict"]
    for name in [n for n in state if n.endswith("scales")]:
        state[name] = torch.tensor([0.5, 0.5, 1.0])
    state["quan0.alpha"] = torch.tensor([[3.0]])
    quan0 = load_checkpoint(write(tmp_path, content)).model.quan0
    assert isinstance(quan0, QNQuantizer)
    assert quan0.levels == (0, 1, 2, 4) and quan0.alpha.item() == 1.5


def test_data_parallel_compile_half_and_requires_grad(tmp_path: Path, content: dict[str, Any]) -> None:
    plain = load_checkpoint(write(tmp_path, content)).model
    state = {f"module._orig_mod.{name}": t for name, t in content["state_dict"].items()}
    content |= {"state_dict": state, "alpha": [t.requires_grad_() for t in content["alpha"]]}
    checkpoint = load_checkpoint(write(tmp_path, content))
    assert [n for n in checkpoint.notes] == [
        "removed the prefix 'module.' from every tensor name",
        "removed the prefix '_orig_mod.' from every tensor name",
    ]
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(checkpoint.model(x), plain(x))
    halves = {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
    checkpoint = load_checkpoint(write(tmp_path, content | {"state_dict": halves}))
    assert "converted tensors of type torch.float16 to torch.float32" in checkpoint.notes
    assert all(p.dtype == torch.float32 for p in checkpoint.model.parameters())


def test_missing_batch_counters_are_no_matter(tmp_path: Path, content: dict[str, Any]) -> None:
    content["state_dict"] = {n: t for n, t in content["state_dict"].items() if "num_batches" not in n}
    assert load_checkpoint(write(tmp_path, content)).notes == ()


BIASES_FORMS: list[Any] = [[-0.25, 0.75], [[-0.25, 0.75]] * 4]


@pytest.mark.parametrize("biases", BIASES_FORMS, ids=["one list", "a list a layer"])
def test_biases_from_a_json_file(tmp_path: Path, content: dict[str, Any], biases: list[Any]) -> None:
    expected = load_checkpoint(write(tmp_path, content)).model.state_dict()
    del content["bias"]
    path = write(tmp_path, content)
    with pytest.raises(
        OptionError, match=r'4 quantized layers without biases[\s\S]*\{"biases": \[b_1[\s\S]*--qn-biases'
    ):
        load_checkpoint(path)
    (tmp_path / "biases.json").write_text(json.dumps({"biases": biases}))
    got = load_checkpoint(path, qn_biases=tmp_path / "biases.json").model.state_dict()
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())


def test_real_file_without_its_biases(data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "checkpoints" / "qn" / "resnet20_w2t_a2.pth"
    content = torch.load(source, weights_only=True)
    (tmp_path / "biases.json").write_text(json.dumps({"biases": content.pop("bias")}))
    got = load_checkpoint(write(tmp_path, content), qn_biases=tmp_path / "biases.json").model.state_dict()
    expected = load_checkpoint(source).model.state_dict()
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "cannot be read"),
        ("[1, 2]", "no list of biases"),
        ('{"biases": []}', "no list of biases"),
        ('{"biases": [[0, 1], [0, 1]]}', r"wrong number of bias lists[\s\S]*got:      2[\s\S]*4 lists"),
        ('{"biases": [[0, 1], ["a"], [0], [0]]}', r"biases\[1\]: no list of numbers"),
        (None, "cannot be read"),
    ],
)
def test_bad_bias_files(tmp_path: Path, content: dict[str, Any], text: str | None, message: str) -> None:
    del content["bias"]
    path = tmp_path / "biases.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(OptionError, match=message):
        load_checkpoint(write(tmp_path, content), qn_biases=path)


def test_biases_twice(tmp_path: Path, content: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="in the checkpoint already"):
        load_checkpoint(write(tmp_path, content), qn_biases="b.json")


def broken(content: dict[str, Any], kind: str) -> dict[str, Any]:
    """`content` with one defect."""
    state = content["state_dict"]
    match kind:
        case "short alpha":
            content["alpha"].pop()
        case "all short":
            for key in ("alpha", "beta", "bias"):
                content[key].pop()
        case "vector alpha":
            content["alpha"][2] = torch.ones(2)
        case "text alpha":
            content["alpha"][2] = "one"
        case "tensor alpha":
            content["alpha"] = torch.ones(4)
        case "bias tensor":
            content["bias"] = torch.ones(4, 2)
        case "bias counts":
            content["bias"][1] = [0.0]
        case "bias order":
            content["bias"][1] = [0.5, -0.5]
        case "nan beta":
            content["beta"][3] = torch.tensor([float("nan")])
        case "inf weight":
            state["layer1.0.conv2.weight"][0, 0, 0, 0] = float("inf")
        case "missing":
            del state["layer2.0.bn1.running_var"]
        case "surplus":
            state["layer2.0.extra"] = torch.ones(1)
        case "shape":
            state["bn1.weight"] = torch.ones(5)
        case "integer":
            state["layer1.0.conv2.weight"] = state["layer1.0.conv2.weight"].to(torch.int8)
        case "no fc":
            del state["fc.weight"]
        case "downsample":
            state["layer2.0.downsample.0.weight"] = torch.ones(8, 4, 1, 1)
        case "stem":
            state["conv1.weight"] = torch.ones(4)
        case "scales":
            state["quan0.scales"] = torch.tensor([1.0, 2**0.5, 1.0])
        case "other levels":
            state["quan0.scales"] = torch.tensor([1.0, 1.0, 2.0])
        case "not a tensor":
            state["layer2.0.bn1.bias"] = [0.0] * 8
        case "empty tensor":
            state["layer2.0.bn1.bias"] = torch.ones(0)
        case "sparse":
            state["fc.bias"] = torch.ones(10).to_sparse()
        case "complex":
            state["fc.bias"] = torch.ones(10, dtype=torch.complex64)
        case "expanded":
            state["fc.weight"] = torch.ones(1).expand(10**5, 10**5)
    return content


DEFECTS = [
    ("short alpha", r"differ in length[\s\S]*3 alpha, 4 beta, 4 bias"),
    ("all short", r"do not fit the network[\s\S]*3 entries[\s\S]*expected: 4"),
    ("vector alpha", r"entries of alpha are no scalars[\s\S]*alpha\[2\]"),
    ("text alpha", r"alpha\[2\]: no list of numbers"),
    ("tensor alpha", "alpha is no list"),
    ("bias tensor", "bias is no list"),
    ("bias counts", r"different numbers of thresholds[\s\S]*layer 1: 1[\s\S]*expected: 2"),
    ("bias order", r"layer1.0.conv2: weight biases do not ascend"),
    ("nan beta", r"NaN or infinite[\s\S]*layer2.0.conv2.weight_quantizer.beta \(1\)"),
    ("inf weight", r"NaN or infinite[\s\S]*layer1.0.conv2.weight \(1\)"),
    ("missing", r"missing: layer2.0.bn1.running_var\n"),
    ("surplus", r"surplus: layer2.0.extra\n"),
    ("shape", r"other shapes[\s\S]*bn1.weight float \[5\] for float \[4\]"),
    ("integer", r"kinds[\s\S]*conv2.weight integer \[4, 4, 3, 3\] for float"),
    ("no fc", r"not those of a residual network[\s\S]*known architectures: daq-[\s\S]*qn-resnet20"),
    ("downsample", r"not those of a residual network[\s\S]*--model package.module:factory"),
    ("stem", r"stem's weight is no convolution's"),
    ("scales", r"quan0.scales: activation levels are no ascending integers"),
    ("other levels", r"different levels[\s\S]*quan0: \[0, 1, 2, 4\]"),
    ("not a tensor", r"no named tensor[\s\S]*'layer2.0.bn1.bias': list"),
    ("empty tensor", r"layer2.0.bn1.bias: the tensor's shape does not fit the file"),
    ("sparse", r"fc.bias: the tensor is not a dense real one"),
    ("complex", r"fc.bias: the tensor is not a dense real one"),
    ("expanded", r"fc.weight: the tensor's shape does not fit the file[\s\S]*\[100000, 100000\]"),
]


@pytest.mark.parametrize(("kind", "message"), DEFECTS, ids=[d[0] for d in DEFECTS])
def test_defects_are_named(tmp_path: Path, content: dict[str, Any], kind: str, message: str) -> None:
    path = write(tmp_path, broken(content, kind))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path, family="qn")


def test_levels_for_float_weights(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="weights are float"):
        load_checkpoint(write(tmp_path, qn_content(None, (0, 1))), weight_levels=(-1, 0, 1))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_temperature_must_be_positive(tmp_path: Path, content: dict[str, Any], temperature: float) -> None:
    with pytest.raises(QExportError, match="temperature is a positive number"):
        load_checkpoint(write(tmp_path, content), temperature=temperature)


def test_unknown_temperature_stays_unknown(tmp_path: Path, content: dict[str, Any]) -> None:
    checkpoint = load_checkpoint(write(tmp_path, content))
    assert checkpoint.temperature is None
    assert set_temperature(checkpoint.model, 5.0) == 9

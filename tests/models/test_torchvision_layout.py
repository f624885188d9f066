"""Without quantizers the networks have torchvision's names and shapes, so that published float weights load.

torchvision itself is not installed; its documentation states parameters and multiply-accumulates of every weight file
("num_params", "GFLOPS"), and its layer numbers follow from its layer lists.
"""

from __future__ import annotations

import pytest
import torch

from qexport.models.describe import describe
from qexport.models.papers import PAIRS
from qexport.models.registry import build

DOCUMENTED = {
    "alexnet": (61_100_840, 0.71, 16),
    "vgg16": (138_357_544, 15.47, 32),
    "resnet18": (11_689_512, 1.81, 122),
    "resnet34": (21_797_672, 3.66, 218),
    "resnet50": (25_557_032, 4.09, 320),
    "mobilenet_v2": (3_504_872, 0.30, 314),
    "ssd300_vgg16": (35_641_826, 34.86, 71),
}
"""Parameters, 10^9 multiply-accumulates, entries of the state_dict."""

ARGUMENTS = {"ssd300_vgg16": {"num_classes": 90}}
"""The documented detector was trained on COCO: 90 classes and the background."""


def shapes(name: str, **arguments: object) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {k: tuple(v.shape) for k, v in build(name, **arguments).state_dict().items()}


@pytest.mark.parametrize("scheme", ["qn", "daq"])
@pytest.mark.parametrize("name", DOCUMENTED)
def test_documented_figures(scheme: str, name: str) -> None:
    parameters, giga_macs, entries = DOCUMENTED[name]
    found = describe(f"{scheme}-{name}", **ARGUMENTS.get(name, {}))
    assert found.parameters == parameters
    assert round(found.macs / 1e9, 2) == giga_macs
    assert len(shapes(f"{scheme}-{name}")) == entries


def convolutions(prefix: str, rows: str) -> dict[str, tuple[int, ...]]:
    """{prefix}{number}.weight and .bias from "number:out,in,k" words."""
    found: dict[str, tuple[int, ...]] = {}
    for word in rows.split():
        number, _, sizes = word.partition(":")
        out, inputs, kernel = map(int, sizes.split(","))
        found[f"{prefix}{number}.weight"] = (out, inputs, kernel, kernel)
        found[f"{prefix}{number}.bias"] = (out,)
    return found


def linears(prefix: str, rows: str) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for word in rows.split():
        number, _, sizes = word.partition(":")
        out, inputs = map(int, sizes.split(","))
        found |= {f"{prefix}{number}.weight": (out, inputs), f"{prefix}{number}.bias": (out,)}
    return found


VGG_CONVS = (
    "0:64,3,3 2:64,64,3 5:128,64,3 7:128,128,3 10:256,128,3 12:256,256,3 14:256,256,3 17:512,256,3 19:512,512,3 "
)
ALEXNET = convolutions("features.", "0:64,3,11 3:192,64,5 6:384,192,3 8:256,384,3 10:256,256,3") | linears(
    "classifier.", "1:4096,9216 4:4096,4096 6:1000,4096"
)
VGG16 = convolutions("features.", VGG_CONVS + "21:512,512,3 24:512,512,3 26:512,512,3 28:512,512,3") | linears(
    "classifier.", "0:4096,25088 3:4096,4096 6:1000,4096"
)
SSD300 = (
    {"backbone.scale_weight": (512,)}
    | convolutions("backbone.features.", VGG_CONVS + "21:512,512,3")
    | convolutions("backbone.extra.0.", "1:512,512,3 3:512,512,3 5:512,512,3 7.1:1024,512,3 7.3:1024,1024,1")
    | convolutions("backbone.extra.", "1.0:256,1024,1 1.2:512,256,3 2.0:128,512,1 2.2:256,128,3")
    | convolutions("backbone.extra.", "3.0:128,256,1 3.2:256,128,3 4.0:128,256,1 4.2:256,128,3")
    | convolutions(
        "head.classification_head.module_list.",
        "0:364,512,3 1:546,1024,3 2:546,512,3 3:546,256,3 4:364,256,3 5:364,256,3",
    )
    | convolutions(
        "head.regression_head.module_list.", "0:16,512,3 1:24,1024,3 2:24,512,3 3:24,256,3 4:16,256,3 5:16,256,3"
    )
)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [("alexnet", {}, ALEXNET), ("vgg16", {}, VGG16), ("ssd300_vgg16", {"num_classes": 90}, SSD300)],
    ids=["alexnet", "vgg16", "ssd300_vgg16"],
)
def test_every_key(name: str, arguments: dict[str, int], expected: dict[str, tuple[int, ...]]) -> None:
    assert shapes(f"qn-{name}", **arguments) == expected


def batch_norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    values = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{v}": (channels,) for v in values} | {f"{name}.num_batches_tracked": ()}


def resnet_keys(blocks: tuple[int, ...], bottleneck: bool) -> dict[str, tuple[int, ...]]:
    """Keys and shapes from the paper's table 1 and torchvision's names."""
    found = {"conv1.weight": (64, 3, 7, 7), **batch_norm("bn1", 64)}
    channels = 64
    for stage, (count, width) in enumerate(zip(blocks, (64, 128, 256, 512), strict=True), start=1):
        out = width * 4 if bottleneck else width
        for i in range(count):
            p = f"layer{stage}.{i}."
            sizes = [(width, channels, 1), (width, width, 3), (out, width, 1)]
            if not bottleneck:
                sizes = [(width, channels, 3), (width, width, 3)]
            for number, (o, n, k) in enumerate(sizes, start=1):
                found |= {f"{p}conv{number}.weight": (o, n, k, k), **batch_norm(f"{p}bn{number}", o)}
            if i == 0 and (stage > 1 or bottleneck):
                found |= {f"{p}downsample.0.weight": (out, channels, 1, 1), **batch_norm(f"{p}downsample.1", out)}
            channels = out
    return found | {"fc.weight": (1000, channels), "fc.bias": (1000,)}


@pytest.mark.parametrize(
    ("name", "blocks", "bottleneck"),
    [("resnet18", (2, 2, 2, 2), False), ("resnet34", (3, 4, 6, 3), False), ("resnet50", (3, 4, 6, 3), True)],
)
def test_resnet_keys(name: str, blocks: tuple[int, ...], bottleneck: bool) -> None:
    assert shapes(f"daq-{name}") == resnet_keys(blocks, bottleneck)


def test_mobilenet_keys() -> None:
    found = shapes("qn-mobilenet_v2")
    expected = {
        "features.0.0.weight": (32, 3, 3, 3),
        "features.0.1.running_mean": (32,),
        "features.1.conv.0.0.weight": (32, 1, 3, 3),
        "features.1.conv.1.weight": (16, 32, 1, 1),
        "features.1.conv.2.bias": (16,),
        "features.2.conv.0.0.weight": (96, 16, 1, 1),
        "features.2.conv.0.1.weight": (96,),
        "features.2.conv.1.0.weight": (96, 1, 3, 3),
        "features.2.conv.1.1.weight": (96,),
        "features.2.conv.2.weight": (24, 96, 1, 1),
        "features.2.conv.3.weight": (24,),
        "features.17.conv.2.weight": (320, 960, 1, 1),
        "features.18.0.weight": (1280, 320, 1, 1),
        "features.18.1.num_batches_tracked": (),
        "classifier.1.weight": (1000, 1280),
        "classifier.1.bias": (1000,),
    }
    assert {k: found.get(k) for k in expected} == expected


def test_vgg_with_batch_norm_is_vgg16_bn() -> None:
    found = shapes("qn-vgg16", batch_norm=True)
    convs = [int(k.split(".")[1]) for k, v in found.items() if k.startswith("features") and len(v) == 4]
    assert convs == [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40]
    assert all(f"features.{n + 1}.running_var" in found for n in convs)


@pytest.mark.parametrize("pair", ["qn-w2a2", "qn-w1a32", "daq-w2a2", "daq-w1a32"])
@pytest.mark.parametrize("name", DOCUMENTED)
def test_float_weights_load_into_the_quantized_network(name: str, pair: str) -> None:
    """Quantizers only add keys; first and last layers have none."""
    chosen = PAIRS[pair]
    arch = f"{chosen.scheme}-{name}"
    floats, quantized = shapes(arch), shapes(arch, **chosen.arguments)
    assert {k: quantized[k] for k in floats} == floats
    added = set(quantized) - set(floats)
    assert added and all("quan" in k or k.endswith("output_scale") for k in added)
    edges = [k.removesuffix(".weight") for k, v in floats.items() if k.endswith(".weight") and len(v) > 1]
    first, *_, last = edges
    assert not any(k.startswith((f"{first}.", f"{last}.")) and ("weight_quant" in k or "scale" in k) for k in added)

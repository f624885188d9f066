"""Any source of images gives the same pixels, and what is no image is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from qexport.calibration.data import open_images
from qexport.capture.capture import Captured
from qexport.datasets import open_dataset
from qexport.errors import DataError, OptionError
from qexport.ir import Graph, real
from qexport.ops import Affine

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def network(shape: tuple[int, ...] = (3, 6, 6)) -> Graph:
    """A graph whose first affine is the normalisation with MEAN and STD."""
    graph = Graph()
    graph.add_input("image", real(shape, 0.0, 255.0))
    mean, std = MEAN[: shape[0]], STD[: shape[0]]
    gain = tuple(Fraction(1, 255) / Fraction(float(s)) for s in std)
    bias = tuple(-Fraction(float(m)) / Fraction(float(s)) for m, s in zip(mean, std, strict=True))
    graph.add("normalize", Affine(gain, bias), "image")
    graph.outputs = ["normalize"]
    return graph


def normalized(images: NDArray[np.uint8]) -> torch.Tensor:
    """As torchvision does it, in float32."""
    x = torch.from_numpy(images).float() / 255
    return (x - torch.tensor(MEAN).float().view(3, 1, 1)) / torch.tensor(STD).float().view(3, 1, 1)


class Reader:
    """What ONNX Runtime calls a CalibrationDataReader, without its base class."""

    def __init__(self, batches: list[Any]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch, "size": 1}


class RewindableReader(Reader):
    def __init__(self, batches: list[Any]) -> None:
        super().__init__(batches)
        self._all = batches

    def rewind(self) -> None:
        self._batches = iter(self._all)


def folder(images: NDArray[np.uint8], root: Path) -> Path:
    for i, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(root / f"{i:03}.png")
    return root


def saved(images: NDArray[np.uint8], path: Path) -> Path:
    np.savez(path, images=images) if path.suffix == ".npz" else np.save(path, images)
    return path


SOURCES: dict[str, Callable[[NDArray[np.uint8], Path], Any]] = {
    "array": lambda x, _: x,
    "channels_last": lambda x, _: x.transpose(0, 2, 3, 1),
    "tensor": lambda x, _: torch.from_numpy(x),
    "int64": lambda x, _: x.astype(np.int64),
    "batches": lambda x, _: [x[:3], x[3:4], x[4:]],
    "generator": lambda x, _: (x[i : i + 7] for i in range(0, len(x), 7)),
    "single_images": lambda x, _: list(x),
    "single_tensors": lambda x, _: [torch.from_numpy(image) for image in x],
    "pairs": lambda x, _: [(x[:5], np.zeros(5)), (x[5:], np.zeros(15))],
    "dicts": lambda x, _: [{"pixel_values": x}],
    "loader": lambda x, _: DataLoader(TensorDataset(torch.from_numpy(x), torch.zeros(len(x))), batch_size=6),
    "normalized_loader": lambda x, _: DataLoader(TensorDataset(normalized(x), torch.zeros(len(x))), batch_size=6),
    "normalized_channels_last": lambda x, _: normalized(x).permute(0, 2, 3, 1).numpy(),
    "normalized_single": lambda x, _: list(normalized(x)),
    "unit": lambda x, _: torch.from_numpy(x).float() / 255,
    "unit_half": lambda x, _: (torch.from_numpy(x) / 255).to(torch.float64),
    "float_pixels": lambda x, _: x.astype(np.float32),
    "reader": lambda x, _: Reader([x[:8], x[8:]]),
    "normalized_reader": lambda x, _: RewindableReader([normalized(x).numpy()]),
    "pillow": lambda x, _: [Image.fromarray(image.transpose(1, 2, 0)) for image in x],
    "npz": lambda x, root: saved(x, root / "x.npz"),
    "npy": lambda x, root: str(saved(x, root / "x.npy")),
    "folder": lambda x, root: folder(x, root),
    "dataset": lambda x, root: open_dataset(saved(x, root / "x.npy"), (3, 6, 6)),
}
READ_ONCE = {"generator", "reader"}


def pixels(images: Iterator[NDArray[np.uint8]] | Any) -> NDArray[np.uint8]:
    found = list(images)
    assert all(image.shape[0] == 1 and image.dtype == np.uint8 for image in found)
    return np.concatenate(found)


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_gives_the_same_pixels(name: str, images: NDArray[np.uint8], tmp_path: Path) -> None:
    found = open_images(SOURCES[name](images, tmp_path), network())
    assert found.replayable == (name not in READ_ONCE)
    assert found.total in (None, len(images))
    assert np.array_equal(pixels(found), images)
    if found.replayable:
        assert np.array_equal(pixels(found), images)


@pytest.mark.parametrize("name", SOURCES)
def test_a_limit(name: str, images: NDArray[np.uint8], tmp_path: Path) -> None:
    found = pixels(open_images(SOURCES[name](images, tmp_path), network(), limit=4))
    expected = images[::5] if name == "folder" else images[:4]  # a folder is sorted by class, so spread over it
    assert np.array_equal(found, expected)


def test_totals_are_known_where_they_can_be(images: NDArray[np.uint8], tmp_path: Path) -> None:
    for name in ("array", "tensor", "npz", "npy", "folder", "dataset", "loader"):
        source = SOURCES[name]
        assert open_images(source(images, tmp_path), network()).total == 20, name
    assert open_images(images, network(), limit=4).total == 4


def test_images_of_zeros_and_ones_are_not_taken_for_dark_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 2, (1, 3, 6, 6))
    assert np.array_equal(pixels(open_images(image.astype(np.float32), network())), image * 255)
    assert np.array_equal(pixels(open_images(image.astype(np.uint8), network())), image)


def test_grey_networks_take_images_without_a_channel_axis() -> None:
    x = np.random.default_rng(0).integers(0, 256, (4, 6, 6)).astype(np.uint8)
    for data in (x, x[:, None], x[..., None], list(x)):
        assert np.array_equal(pixels(open_images(data, network((1, 6, 6)))), x[:, None])


def batch(*shape: int, value: float = 0, dtype: Any = np.uint8) -> list[NDArray]:
    return [np.full(shape, value, dtype)]


FAILURES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "grey_for_colours": (batch(2, 1, 6, 6), ("images are grey", "(2, 1, 6, 6)", "3 channels", "repeating the channel")),
    "grey_without_channel": (batch(2, 6, 6), ("images are grey",)),
    "wrong_size": (batch(2, 3, 9, 9), ("another size", "(2, 3, 9, 9)", "[N, 6, 6, 3] or [N, 3, 6, 6]")),
    "scalar": (batch(), ("does not fit the network", "shape ()")),
    "nan": (batch(2, 3, 6, 6, value=np.nan, dtype=np.float32), ("not finite", "216 of 216, such as nan")),
    "infinity": (batch(2, 3, 6, 6, value=np.inf, dtype=np.float32), ("not finite", "such as inf")),
    "other_normalisation": (
        batch(2, 3, 6, 6, value=-1.5, dtype=np.float32),
        ("no pixels", "-1.5 to -1.5", "* std + mean"),
    ),
    "too_large": (batch(2, 3, 6, 6, value=256, dtype=np.int32), ("no pixels", "int32, 256 to 256")),
    "negative": (batch(2, 3, 6, 6, value=-1, dtype=np.int32), ("no pixels", "-1 to -1")),
    "booleans": (batch(2, 3, 6, 6, dtype=bool), ("no image", "array of bool")),
    "words": (["cat.png"], ("no image", "got:      str")),
    "several_entries": ([{"a": np.zeros(3), "b": np.zeros(3)}], ("which entry", "entries a, b", "named image")),
    "number": (7, ("no source of calibration images", "got:      int")),
    "mapping": ({"a": np.zeros(3)}, ("no source of calibration images", "got:      dict")),
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_does_not_fit_is_named(name: str) -> None:
    data, parts = FAILURES[name]
    with pytest.raises(DataError) as caught:
        list(open_images(data, network()))
    for part in parts:
        assert part in str(caught.value)
    if isinstance(data, list):
        assert "calibration batch 0" in str(caught.value)


def test_the_third_batch_is_named(images: NDArray[np.uint8]) -> None:
    with pytest.raises(DataError, match="calibration batch 2: the images are grey"):
        list(open_images([images, images, images[:, :1]], network()))


def test_a_limit_below_one(images: NDArray[np.uint8]) -> None:
    with pytest.raises(OptionError, match="--limit"):
        open_images(images, network(), limit=0)


def test_networks_without_images_take_vectors() -> None:
    x = np.random.default_rng(0).integers(0, 256, (5, 3)).astype(np.uint8)
    assert np.array_equal(pixels(open_images(x, network((3,)))), x)
    with pytest.raises(DataError, match="the input does not fit the network"):
        list(open_images(x[:, :2], network((3,))))


def test_captured_networks_have_their_normalisation_first(network: Captured) -> None:
    """What undoing a normalisation relies on."""
    assert isinstance(network.graph.nodes[0].op, Affine) and network.graph.nodes[0].inputs == ("image",)

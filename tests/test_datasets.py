"""Data sets: every source gives the same uint8 [n, C, H, W], and every mistake a message with its remedy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from qexport.datasets import Dataset, check_labels, open_dataset, read_image
from qexport.errors import DataError, OptionError

SHAPE = (3, 4, 5)


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    """uint8 [6, 4, 5, 3], channels last."""
    return np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3)).astype(np.uint8)


def save_folder(root: Path, pixels: NDArray[np.uint8], classes: tuple[str, ...]) -> None:
    """Image i as PNG in class folder i % len(classes), or in the root itself without classes."""
    for i, image in enumerate(pixels):
        folder = root / classes[i % len(classes)] if classes else root
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")


def channels_first(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return pixels.transpose(0, 3, 1, 2)


def check(dataset: Dataset, expected: NDArray[np.uint8]) -> None:
    """Slices and batches of any size give `expected`, contiguous uint8."""
    assert len(dataset) == len(expected)
    assert np.array_equal(dataset.images(), expected)
    assert np.array_equal(dataset.images(1, 3), expected[1:3])
    assert dataset.images(2, 2).shape == (0, *dataset.input_shape)
    assert np.array_equal(np.concatenate(list(dataset.batches(4))), expected)
    assert all(b.dtype == np.uint8 and b.flags.c_contiguous and len(b) <= 4 for b in dataset.batches(4))


@pytest.mark.parametrize("transpose", [False, True], ids=["nhwc", "nchw"])
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_arrays_of_either_layout(tmp_path: Path, pixels: NDArray[np.uint8], suffix: str, transpose: bool) -> None:
    array = channels_first(pixels) if transpose else pixels
    path = tmp_path / f"images.{suffix}"
    if suffix == "npy":
        np.save(path, array)
    else:
        np.savez(path, images=array, labels=np.arange(6, dtype=np.int32))
    dataset = open_dataset(path, SHAPE)
    check(dataset, channels_first(pixels))
    if suffix == "npy":
        assert dataset.labels is None
    else:
        assert dataset.labels is not None and dataset.labels.dtype == np.int64
        assert dataset.labels.tolist() == list(range(6))


def test_an_ambiguous_array_has_its_channels_last(tmp_path: Path) -> None:
    array = np.arange(2 * 27, dtype=np.uint8).reshape(2, 3, 3, 3)
    np.save(tmp_path / "a.npy", array)
    assert np.array_equal(open_dataset(tmp_path / "a.npy", (3, 3, 3)).images(), channels_first(array))


def test_grey_arrays_need_no_channel_axis(tmp_path: Path) -> None:
    array = np.arange(2 * 20, dtype=np.uint8).reshape(2, 4, 5)
    np.save(tmp_path / "a.npy", array)
    assert np.array_equal(open_dataset(tmp_path / "a.npy", (1, 4, 5)).images(), array[:, None])


def test_class_folders_give_labels(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    save_folder(tmp_path, pixels, ("b", "a"))
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    dataset = open_dataset(tmp_path, SHAPE)
    check(dataset, channels_first(pixels)[[1, 3, 5, 0, 2, 4]])
    assert dataset.class_names == ("a", "b")
    assert dataset.labels is not None and dataset.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_class_names_of_the_network_decide_the_labels(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    save_folder(tmp_path, pixels, ("b", "a"))
    dataset = open_dataset(tmp_path, SHAPE, class_names=["b", "c", "a"])
    assert dataset.labels is not None and dataset.labels.tolist() == [0, 0, 0, 2, 2, 2]
    check(dataset, channels_first(pixels)[[0, 2, 4, 1, 3, 5]])


def test_as_many_folders_of_other_names_follow_their_sorted_order(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    save_folder(tmp_path, pixels, ("n02", "n01"))
    dataset = open_dataset(tmp_path, SHAPE, class_names=["tench", "goldfish"])
    assert dataset.class_names == ("n01", "n02")


def test_a_flat_folder_has_no_labels(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    save_folder(tmp_path, pixels, ())
    dataset = open_dataset(tmp_path, SHAPE)
    check(dataset, channels_first(pixels))
    assert dataset.labels is None and dataset.class_names is None


def test_folder_images_are_read_when_asked_for(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    save_folder(tmp_path, pixels, ())
    (tmp_path / "3.png").write_bytes(b"broken")
    dataset = open_dataset(tmp_path, SHAPE)
    dataset.images(0, 3)
    with pytest.raises(DataError, match=r"3\.png: the image cannot be read"):
        dataset.images(0, 4)


def test_limit_takes_the_first_of_an_array_and_spreads_over_a_folder(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    np.savez(tmp_path / "a.npz", images=pixels, labels=np.arange(6))
    limited = open_dataset(tmp_path / "a.npz", SHAPE, limit=2)
    check(limited, channels_first(pixels)[:2])
    assert limited.labels is not None and limited.labels.tolist() == [0, 1]
    save_folder(tmp_path / "folder", pixels, ("a", "b", "c"))
    spread = open_dataset(tmp_path / "folder", SHAPE, limit=3)
    assert spread.labels is not None and spread.labels.tolist() == [0, 1, 2]
    assert len(open_dataset(tmp_path / "folder", SHAPE, limit=100)) == 6
    with pytest.raises(OptionError, match=r"--limit: the number of images must be positive"):
        open_dataset(tmp_path / "a.npz", SHAPE, limit=0)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK"])
def test_image_files_are_converted_to_the_channels_of_the_network(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(np.full((4, 5, 3), 255, np.uint8)).convert(mode)
    path = tmp_path / ("white.tif" if mode == "CMYK" else "white.png")
    image.save(path)
    assert np.array_equal(read_image(path, SHAPE), np.full(SHAPE, 255, np.uint8))
    assert np.array_equal(read_image(path, (1, 4, 5)), np.full((1, 4, 5), 255, np.uint8))


def test_one_image_from_every_source(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    Image.fromarray(pixels[0]).save(tmp_path / "a.png")
    np.save(tmp_path / "alone.npy", pixels[0])
    np.save(tmp_path / "batch.npy", channels_first(pixels)[:1])
    np.savez(tmp_path / "a.npz", images=pixels[:1])
    for name in ("a.png", "alone.npy", "batch.npy", "a.npz"):
        assert np.array_equal(read_image(tmp_path / name, SHAPE), channels_first(pixels)[0]), name
    grey = tmp_path / "grey.npy"
    np.save(grey, pixels[0, :, :, 0])
    assert np.array_equal(read_image(grey, (1, 4, 5)), pixels[0, None, :, :, 0])


def test_real_files(data_dir: Path) -> None:
    test = open_dataset(data_dir / "cifar10" / "test.npz", (3, 32, 32))
    assert len(test) == 509 and test.labels is not None and test.labels.max() == 9
    folder = open_dataset(data_dir / "cifar10" / "test_jpeg", (3, 32, 32), limit=20)
    assert folder.images().shape == (20, 3, 32, 32) and folder.class_names is not None
    assert folder.labels is not None and set(folder.labels.tolist()) == set(range(10))
    assert folder.class_names[0] == "airplane"


# Mistakes: (array of an .npz, labels or None, parts of the message).
WRONG_ARRAYS: dict[str, tuple[NDArray, NDArray | None, tuple[str, ...]]] = {
    "floats": (
        np.linspace(-2.0, 2.0, 120, dtype=np.float32).reshape(2, 4, 5, 3),
        None,
        ("images must be uint8 pixels", "got:      float32, -2 to 2", "before normalisation", "* 255"),
    ),
    "nan": (np.full((2, 4, 5, 3), np.nan), None, ("images must be uint8 pixels", "float64, with NaN")),
    "int64": (np.zeros((2, 4, 5, 3), np.int64), None, ("images must be uint8", "int64", "astype(np.uint8)")),
    "empty": (np.zeros((0, 4, 5, 3), np.uint8), None, ("there are no images", "(0, 4, 5, 3)", "1 or more")),
    "scalar": (np.uint8(3), None, ("there are no images", "shape ()")),
    "size": (
        np.zeros((2, 8, 8, 3), np.uint8),
        None,
        ("images have another size", "(2, 8, 8, 3)", "[N, 4, 5, 3] or [N, 3, 4, 5]", "resize", "--input-shape"),
    ),
    "grey": (np.zeros((2, 4, 5, 1), np.uint8), None, ("images have another size", "(2, 4, 5, 1)")),
    "no_channels": (np.zeros((2, 4, 5), np.uint8), None, ("images have another size", "(2, 4, 5)")),
    "label_count": (
        np.zeros((2, 4, 5, 3), np.uint8),
        np.zeros(3, np.int64),
        ("labels do not fit the images", "(3,)", "(2,), one label per image"),
    ),
    "one_hot": (np.zeros((2, 4, 5, 3), np.uint8), np.zeros((2, 10), np.int64), ("labels do not fit", "(2, 10)")),
    "label_type": (
        np.zeros((2, 4, 5, 3), np.uint8),
        np.array(["cat", "dog"]),
        ("labels must be integers", "<U3", "not its name"),
    ),
    "negative_label": (
        np.zeros((2, 4, 5, 3), np.uint8),
        np.array([0, -1]),
        ("a label is negative", "-1 at image 1", "leave out"),
    ),
}


@pytest.mark.parametrize("case", WRONG_ARRAYS)
def test_wrong_arrays(tmp_path: Path, case: str) -> None:
    images, labels, parts = WRONG_ARRAYS[case]
    path = tmp_path / "wrong.npz"
    np.savez(path, images=images, **({} if labels is None else {"labels": labels}))
    with pytest.raises(DataError) as caught:
        open_dataset(path, SHAPE)
    for part in (str(path), *parts):
        assert part in str(caught.value)


def test_labels_beyond_the_network(tmp_path: Path) -> None:
    check_labels(np.array([0, 9]), 10, "x.npz")
    with pytest.raises(DataError) as caught:
        check_labels(np.array([0, 10]), 10, "x.npz")
    for part in ("x.npz: a label lies outside", "label 10 at image 1", "0 to 9: the network has 10 outputs", "remedy"):
        assert part in str(caught.value)


def unusable_files(root: Path) -> dict[str, tuple[Path, str]]:
    """Files and folders that cannot be opened, with a part of the message each must give."""
    (root / "empty").mkdir()
    (root / "empty_classes" / "cat").mkdir(parents=True)
    (root / "mixed" / "cat").mkdir(parents=True)
    image = Image.fromarray(np.zeros((4, 5, 3), np.uint8))
    image.save(root / "mixed" / "a.png")
    image.save(root / "mixed" / "cat" / "b.png")
    np.savez(root / "other.npz", x=np.zeros(3))
    np.savez(root / "pickled.npz", images=np.array([{}, {}], dtype=object))
    np.save(root / "pickled.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    (root / "text.npz").write_text("no archive")
    (root / "text.npy").write_text("no array")
    (root / "list.txt").write_text("a.png")
    image.save(root / "single.png")
    return {
        "missing": (root / "missing.npz", "no such file or folder"),
        "empty": (root / "empty", "there are no images"),
        "empty_classes": (root / "empty_classes", "there are no images"),
        "mixed": (root / "mixed", "images lie beside class folders"),
        "no_images_key": (root / "other.npz", "the file holds no images"),
        "pickled_npz": (root / "pickled.npz", "the file cannot be read"),
        "pickled_npy": (root / "pickled.npy", "the file cannot be read"),
        "text_npz": (root / "text.npz", "the file cannot be read"),
        "text_npy": (root / "text.npy", "the file cannot be read"),
        "text": (root / "list.txt", "not a format images are read from"),
        "one_image_file": (root / "single.png", "an image folder, .npz or .npy"),
    }


def test_unusable_files(tmp_path: Path) -> None:
    for case, (path, part) in unusable_files(tmp_path).items():
        with pytest.raises(DataError) as caught:
            open_dataset(path, SHAPE)
        assert part in str(caught.value) and str(path) in str(caught.value), case
        assert "remedy" in str(caught.value), case


def test_truncated_files(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    np.savez(tmp_path / "a.npz", images=pixels)
    np.save(tmp_path / "a.npy", pixels)
    Image.fromarray(pixels[0]).save(tmp_path / "a.png")
    for name in ("a.npz", "a.npy", "a.png"):
        path = tmp_path / name
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(DataError, match="cannot be read"):
            read_image(path, SHAPE)


def test_folders_that_are_partly_unknown_classes(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    save_folder(tmp_path, pixels, ("cat", "unicorn"))
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path, SHAPE, class_names=["cat", "dog"])
    for part in ("class folders do not fit", "unknown folders unicorn", "some of cat, dog", "rename the folders"):
        assert part in str(caught.value)


def test_wrong_image_files(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((7, 8, 3), np.uint8)).save(tmp_path / "size.png")
    Image.fromarray(np.zeros((4, 5), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError) as caught:
        read_image(tmp_path / "size.png", SHAPE)
    for part in ("size.png: the image has another size", "got:      8x7", "expected: 5x4", "nothing is resized"):
        assert part in str(caught.value)
    with pytest.raises(DataError, match="more than 8 bits a channel"):
        read_image(tmp_path / "deep.png", SHAPE)
    with pytest.raises(DataError, match="1, 3 or 4 channels"):
        read_image(tmp_path / "deep.png", (2, 4, 5))


def test_wrong_single_images(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    np.savez(tmp_path / "several.npz", images=pixels)
    with pytest.raises(DataError, match="the file holds several images"):
        read_image(tmp_path / "several.npz", SHAPE)
    with pytest.raises(DataError, match="no such file"):
        read_image(tmp_path, SHAPE)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DataError, match=r"\.npz, \.npy or an image"):
        read_image(tmp_path / "a.txt", SHAPE)


def objects_npz(path: Path, **changed: object) -> Path:
    """Three images of 4 x 5 pixels with two, no and one object; `changed` replaces arrays, None leaves one out."""
    arrays: dict[str, object] = {
        "images": np.zeros((3, 4, 5, 3), np.uint8),
        "boxes": np.array([[0, 0, 5, 4], [1, 1, 2, 3], [0, 2, 2.5, 4]]),
        "labels": np.array([2, 0, 1]),
        "offsets": np.array([0, 2, 2, 3]),
    }
    np.savez(path, **{key: np.asarray(value) for key, value in (arrays | changed).items() if value is not None})
    return path


def test_objects_of_an_npz(tmp_path: Path) -> None:
    data = open_dataset(objects_npz(tmp_path / "x.npz"), SHAPE)
    assert data.labels is None and data.objects is not None
    assert [len(image) for image in data.objects] == [2, 0, 1]
    assert data.objects[0].boxes.tolist() == [[0, 0, 1, 1], [np.float32(0.2), 0.25, np.float32(0.4), 0.75]]
    assert data.objects[0].labels.tolist() == [2, 0] and not data.objects[0].difficult.any()
    few = open_dataset(objects_npz(tmp_path / "y.npz", difficult=[True, False, True]), SHAPE, limit=2)
    assert few.objects is not None and len(few.objects) == 2
    assert few.objects[0].difficult.tolist() == [True, False]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"boxes": None}, "not all that describes objects"),
        ({"boxes": np.zeros((3, 3))}, "do not fit each other"),
        ({"labels": [0, 1]}, "do not fit each other"),
        ({"labels": [0.5, 1.0, 2.0]}, "do not fit each other"),
        ({"labels": [0, -1, 2]}, "a label is negative"),
        ({"difficult": [True]}, "do not fit each other"),
        ({"offsets": [0, 2, 3]}, "offsets do not divide the objects"),
        ({"offsets": [0, 2, 1, 3]}, "offsets do not divide the objects"),
        ({"offsets": [0, 1, 2, 2]}, "offsets do not divide the objects"),
        ({"boxes": [[0, 0, 5, 4], [1, 1, 6, 3], [0, 2, 2, 4]]}, r"leaves its image(.|\n)*box 1"),
        ({"boxes": [[0, 0, 5, 4], [1, 1, 2, 3], [2, 2, 2, 4]]}, r"is empty(.|\n)*box 2"),
        ({"boxes": [[0, 0, 5, 4], [np.nan, 1, 2, 3], [0, 2, 2, 4]]}, r"is empty(.|\n)*box 1"),
    ],
)
def test_damaged_objects_are_refused(changed: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(objects_npz(tmp_path / "x.npz", **changed), SHAPE)

"""Handwritten digits of scikit-learn on textured canvases, with their boxes: a small data set for detectors.

Each scene has one to four digits of different sizes, darker or lighter than a canvas of smooth noise and stripes.
Digits of the training scenes are those of the training split, digits of the test scenes those held out.

    python -m qexport.models.detection.digit_scenes scenes.npz --split test --count 500
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from qexport.errors import OptionError, QExportError
from qexport.models.digits_data import CLASS_NAMES, Split, load_digits_split, write_npz

MAX_OBJECTS = 4
MIN_SIDE, MAX_SIDE = 0.22, 0.5
"""Side of a digit's square, as a share of the canvas."""

INK = 0.35
"""A digit's box encloses the pixels whose ink is above this share."""

MAX_COVERED = 0.1
"""Two digits' squares share at most this part of the smaller one."""

ATTEMPTS = 20
"""Places tried for a digit before it is left out."""


@dataclass(frozen=True, eq=False)
class Scenes:
    """Images and what is in them.

    Attributes:
        images: uint8 [N, H, W, C].
        boxes: float32 [M, 4], corners (x0, y0, x1, y1) in pixels.
        labels: int64 [M], 0..9.
        offsets: int64 [N + 1]; the objects of image i are offsets[i] to offsets[i + 1] - 1.
    """

    images: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    offsets: NDArray[np.int64]


def make_scenes(count: int, *, split: Split = "train", size: int = 64, channels: int = 1, seed: int = 0) -> Scenes:
    """Draw scenes; equal arguments give equal scenes.

    Args:
        count: scenes, at least one.
        split: which digits; test scenes also have another stream of random numbers than training scenes.
        size: height and width of a scene in pixels, at least 32.
        channels: 1 (grey) or 3.
        seed: of canvases, digits and places.

    Raises:
        OptionError: an argument is out of range; DataError: scikit-learn is not installed.
    """
    if count < 1 or size < 32 or channels not in (1, 3):
        raise OptionError(
            "there are no such scenes",
            got=f"{count} scenes of {size}x{size}, {channels} channels",
            expected="at least one scene of 32x32 or more, 1 or 3 channels",
        )
    digits, classes = load_digits_split(split)
    # RandomState: numpy promises never to change its numbers (NEP 19), so a committed checkpoint's data stay what
    # they were.
    random = np.random.RandomState([seed, int(split == "test")])
    images, boxes, labels, offsets = [], [], [], [0]
    for _ in range(count):
        canvas = _canvas(size, channels, random)
        for square, side in _places(size, random):
            chosen = random.randint(len(classes))
            boxes.append(_draw(canvas, digits[chosen, ..., 0] / 255, square, side, random))
            labels.append(classes[chosen])
        images.append(np.rint(np.clip(canvas, 0, 255)).astype(np.uint8))
        offsets.append(len(labels))
    return Scenes(np.stack(images), np.array(boxes, np.float32), np.array(labels, np.int64), np.array(offsets))


def _canvas(size: int, channels: int, random: np.random.RandomState) -> NDArray[np.float64]:
    """[size, size, channels]: a level, smooth noise of three coarsenesses, stripes, and grain."""
    canvas = np.full((size, size, channels), random.uniform(70, 185)) + random.uniform(-15, 15, channels)
    for cells, strength in ((3, 20.0), (7, 12.0), (17, 6.0)):
        noise = random.normal(0, strength, (cells, cells, channels))
        canvas += _resized(noise, size)
    y, x = np.mgrid[:size, :size]
    angle, period = random.uniform(0, np.pi), random.uniform(5, 24)
    wave = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period + random.uniform(0, 6.28))
    canvas += random.uniform(0, 14) * wave[..., None]
    return canvas + random.normal(0, 4, canvas.shape)


def _places(size: int, random: np.random.RandomState) -> list[tuple[tuple[int, int], int]]:
    """((top, left), side) of squares that hardly overlap."""
    found: list[tuple[tuple[int, int], int]] = []
    for _ in range(random.randint(1, MAX_OBJECTS + 1)):
        side = round(random.uniform(MIN_SIDE, MAX_SIDE) * size)
        for _ in range(ATTEMPTS):
            place = (random.randint(size - side + 1), random.randint(size - side + 1))
            if all(_covered(place, side, other, n) <= MAX_COVERED for other, n in found):
                found.append((place, side))
                break
    return found


def _covered(a: tuple[int, int], side_a: int, b: tuple[int, int], side_b: int) -> float:
    """Shared area of two squares as a share of the smaller one."""
    shared = [max(0, min(p + side_a, q + side_b) - max(p, q)) for p, q in zip(a, b, strict=True)]
    return shared[0] * shared[1] / min(side_a, side_b) ** 2


def _draw(
    canvas: NDArray[np.float64],
    digit: NDArray[np.float64],
    place: tuple[int, int],
    side: int,
    random: np.random.RandomState,
) -> tuple[int, int, int, int]:
    """Draw one digit (8x8, ink 0..1) into the square; returns the corners of its ink."""
    top, left = place
    ink = np.clip(_resized(digit[..., None], side), 0, 1)
    target = canvas[top : top + side, left : left + side]
    contrast = random.uniform(65, 130) * (1 if target.mean() < random.uniform(90, 165) else -1)
    target += contrast * ink
    rows, columns = (np.flatnonzero((ink[..., 0] > INK).any(axis=axis)) for axis in (1, 0))
    return left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1


def _resized(image: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Bilinear, [h, w, C] -> [size, size, C], pixel centres aligned at half a pixel."""
    rows, columns = (_interpolation(n, size) for n in image.shape[:2])
    return np.stack([rows @ plane @ columns.T for plane in np.moveaxis(image, -1, 0)], axis=-1)


def _interpolation(n: int, size: int) -> NDArray[np.float64]:
    """Matrix [size, n] of linear interpolation."""
    place = np.clip((np.arange(size) + 0.5) * n / size - 0.5, 0, n - 1)
    low = np.minimum(place.astype(int), n - 2)
    matrix = np.zeros((size, n))
    matrix[np.arange(size), low], matrix[np.arange(size), low + 1] = 1 - (place - low), place - low
    return matrix


@click.command()
@click.argument("output", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--split", type=click.Choice(["train", "test"]), default="test", show_default=True, help="Which digits.")
@click.option("--count", type=click.IntRange(1), default=500, show_default=True, help="Scenes.")
@click.option("--size", type=click.IntRange(32), default=64, show_default=True, help="Height and width, pixels.")
@click.option("--channels", type=click.IntRange(1, 3), default=1, show_default=True, help="1 or 3.")
@click.option("--seed", default=0, show_default=True)
def main(output: Path, count: int, split: Split, size: int, channels: int, seed: int) -> None:
    """Write scenes to OUTPUT, an .npz with images [N,H,W,C], boxes [M,4], labels [M] and offsets [N+1]."""
    try:
        scenes = make_scenes(count, split=split, size=size, channels=channels, seed=seed)
        write_npz(output, **vars(scenes))
    except QExportError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{output}: {count} images with {len(scenes.labels)} digits ({split}), classes {' '.join(CLASS_NAMES)}")


if __name__ == "__main__":
    main()

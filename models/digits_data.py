"""The handwritten digits of scikit-learn as pixels, with a fixed split: the data of the demo.

The 1,797 images are the test part of the UCI set "Optical Recognition of Handwritten Digits", 8x8, 17 grey levels, by
13 writers. The split is random within each class, so a writer may stand on both sides of it.

    python -m qexport.models.digits_data held_out.npz --split test
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import click
import numpy as np
from numpy.typing import NDArray

from qexport.errors import DataError, OutputError, QExportError

Split = Literal["train", "test"]

CLASS_NAMES = tuple("0123456789")
HELD_OUT_SHARE = 0.2
SPLIT_SEED = 0
GREY_LEVELS = 16
"""scikit-learn's pixels run from 0 to 16."""


def load_digits_split(split: Split) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One side of the split, in the order of the original file.

    Args:
        split: "train" (1,438 images) or "test", the held-out ones (359).

    Returns:
        (images uint8 [N, 8, 8, 1], 0..255; labels int64 [N], 0..9).

    Raises:
        DataError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits  # an extra: only the demo and the trainer need it
    except ImportError as error:
        raise DataError(
            "the handwritten digits come with scikit-learn, which is not installed",
            remedy="pip install 'qexport[demo]'",
        ) from error
    digits = load_digits()
    images = np.rint(digits.images * (255 / GREY_LEVELS)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int64)
    held_out = held_out_mask(labels, HELD_OUT_SHARE, SPLIT_SEED)
    chosen = held_out if split == "test" else ~held_out
    return images[chosen], labels[chosen]


def held_out_mask(labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """Which samples are held out: of each class the nearest whole number to `share` of it, chosen at random.

    RandomState, not default_rng: numpy promises never to change the former's numbers (NEP 19), and another split
    would put training images among the held-out ones of a committed checkpoint.

    Args:
        labels: int64 [N].
        share: 0..1.
        seed: of the choice.

    Returns:
        bool [N].
    """
    random = np.random.RandomState(seed)
    mask = np.zeros(labels.shape, np.bool_)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        mask[random.permutation(members)[: round(share * members.size)]] = True
    return mask


def write_npz(path: Path, **arrays: NDArray) -> None:
    """Write an .npz; either the whole file appears, or nothing.

    Raises:
        OutputError: the file cannot be written.
    """
    # np.savez adds .npz to a name, never to a stream; the process id keeps two writers apart.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("xb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type] # its annotation takes a flag by keyword, too
        temporary.replace(path)
    except OSError as error:
        raise OutputError("the images cannot be written", where=str(path), got=error) from error
    finally:
        temporary.unlink(missing_ok=True)


@click.command()
@click.argument("output", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--split", type=click.Choice(["train", "test"]), default="test", show_default=True, help="Which side.")
def main(output: Path, split: Split) -> None:
    """Write the digits to OUTPUT, an .npz with images (uint8 [N,8,8,1]) and labels (int64 [N])."""
    try:
        images, labels = load_digits_split(split)
        write_npz(output, images=images, labels=labels)
    except QExportError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{output}: {len(images)} images ({split})")


if __name__ == "__main__":
    main()

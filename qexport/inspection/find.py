"""Objects an artifact of a detector finds in images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qexport.detection import Detector, post_process
from qexport.errors import ArtifactError
from qexport.inspection.network import Network, image_batches


@dataclass(frozen=True)
class Found:
    """One object in one image.

    Attributes:
        index: of the class, without the background.
        name: of the class, or None where the model knows no names.
        score: softmax probability.
        box: corners (x0, y0, x1, y1) in pixels.
    """

    index: int
    name: str | None
    score: float
    box: tuple[float, float, float, float]

    @property
    def label(self) -> str:
        """What to call the class."""
        return self.name if self.name is not None else f"class {self.index}"


def is_detector(network: Network) -> bool:
    """Whether the artifact finds objects."""
    return "qexport.detector" in network.metadata


def find_objects(network: Network, images: str | Path, top: int) -> Iterator[list[Found]]:
    """The `top` most probable objects of every image, in order of the images.

    Args:
        network: an artifact of a detector.
        images: one image file; or npz, npy or a folder with any number of images.
        top: how many objects; images with fewer give those.

    Raises:
        ArtifactError: the heads are not those of the detector; DataError: the images are unusable.
    """
    detector = Detector.from_dict(network.metadata["qexport.detector"])
    names = network.metadata.get("qexport.class_names")
    units = network.metadata["qexport.outputs"]
    _, height, width = network.input_shape
    for batch in image_batches(images, network.input_shape):
        heads = [
            head * unit["scale"] if head.dtype.kind in "iu" else head
            for head, unit in zip(network.run(batch), units, strict=True)
        ]
        if [head.shape[1:] for head in heads] != [(detector.n_priors, n) for n in (4, detector.n_classes)]:
            raise ArtifactError("the outputs are not those of the detector", got=[list(head.shape) for head in heads])
        for found in post_process(heads[0], heads[1], detector):
            chosen = zip(found.labels[:top].tolist(), found.scores.tolist(), found.boxes.tolist(), strict=False)
            yield [
                Found(label, names[label] if names else None, score, (x0 * width, y0 * height, x1 * width, y1 * height))
                for label, score, (x0, y0, x1, y1) in chosen
            ]

"""Images and labels from what users have: image folders, npz and npy files."""

from qexport.datasets.dataset import Dataset, open_dataset, read_image
from qexport.datasets.labels import check_labels
from qexport.datasets.objects import Objects

__all__ = ["Dataset", "Objects", "check_labels", "open_dataset", "read_image"]

"""Images and labels from what users have: image folders, npz and npy files."""

from qexport.datasets.dataset import Dataset, open_dataset, read_image
from qexport.datasets.labels import check_labels

__all__ = ["Dataset", "check_labels", "open_dataset", "read_image"]

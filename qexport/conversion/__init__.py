"""The main job: a checkpoint becomes artifacts and a report."""

from qexport.conversion.build import Built, build
from qexport.conversion.calibrate import calibrate
from qexport.conversion.convert import Artifact, convert, metadata
from qexport.conversion.settings import Settings

__all__ = ["Artifact", "Built", "Settings", "build", "calibrate", "convert", "metadata"]

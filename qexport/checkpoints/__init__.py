"""Checkpoint files: safe reading, families of layouts, and the networks they hold."""

from __future__ import annotations

# Importing a family's module registers it.
from qexport.checkpoints import daq, native, qn, user  # noqa: F401
from qexport.checkpoints.checkpoint import Checkpoint
from qexport.checkpoints.load import load_checkpoint
from qexport.checkpoints.native import save_native
from qexport.checkpoints.registry import families

__all__ = ["Checkpoint", "families", "load_checkpoint", "save_native"]

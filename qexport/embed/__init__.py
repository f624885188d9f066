"""Straight-line C99 from a packed file: a directory that compiles on a microcontroller."""

from qexport.embed.directory import TARGETS, embed

__all__ = ["TARGETS", "embed"]

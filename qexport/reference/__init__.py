"""The numpy reference: the definition of what an integer graph computes."""

from qexport.reference.interpreter import Run, interpret

__all__ = ["Run", "interpret"]

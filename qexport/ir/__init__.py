"""The small, closed intermediate representation: tensors with proven ranges, single-output nodes, a verifier."""

from qexport.ir.fingerprint import fingerprint
from qexport.ir.graph import Graph, Node, prune, verify
from qexport.ir.types import INT8, INT16, INT32, UINT8, IntType, TensorType, integer, real

__all__ = [
    "INT8",
    "INT16",
    "INT32",
    "UINT8",
    "Graph",
    "IntType",
    "Node",
    "TensorType",
    "fingerprint",
    "integer",
    "prune",
    "real",
    "verify",
]

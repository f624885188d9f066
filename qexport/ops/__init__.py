"""The ops of the IR, one file a family: attributes, type rule and numpy semantics."""

from qexport.ops.add import Add
from qexport.ops.affine import Affine
from qexport.ops.base import REGISTRY, Op
from qexport.ops.border import BorderBias
from qexport.ops.clip import Clip
from qexport.ops.conv2d import Conv2d
from qexport.ops.l2_norm import L2Norm
from qexport.ops.linear import Linear
from qexport.ops.pool import AvgPool, MaxPool, SumPool
from qexport.ops.prelu import PRelu
from qexport.ops.rescale import Rescale
from qexport.ops.shape import Concat, Pad, Reshape, Slice, Transpose
from qexport.ops.step import Step
from qexport.ops.threshold import Threshold
from qexport.ops.weight import Weight

__all__ = [
    "REGISTRY",
    "Add",
    "Affine",
    "AvgPool",
    "BorderBias",
    "Clip",
    "Concat",
    "Conv2d",
    "L2Norm",
    "Linear",
    "MaxPool",
    "Op",
    "PRelu",
    "Pad",
    "Rescale",
    "Reshape",
    "Slice",
    "Step",
    "SumPool",
    "Threshold",
    "Transpose",
    "Weight",
]

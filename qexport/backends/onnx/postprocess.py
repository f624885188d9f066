"""post.onnx: from the integer heads of a detector to boxes, in float (docs/detection.md).

The same steps as qexport.detection.post_process, which defines the result, in the same order. Kept apart from the
network: model.onnx stays free of floats, and whoever decodes boxes elsewhere leaves this file away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from qexport.backends.onnx.integer import FORMAT_KEY
from qexport.detection import Detector
from qexport.detection.boxes import MAX_LOG_SCALE
from qexport.errors import OptionError

POST_PROCESS_FORMAT = "onnx-post-process"
OUTPUTS = ("boxes", "scores", "labels", "counts")


@dataclass(frozen=True)
class Head:
    """An output of the integer network.

    Attributes:
        name: of the tensor.
        shape: without the batch axis.
        scale: real value = integer * scale.
    """

    name: str
    shape: tuple[int, ...]
    scale: float


def check_heads(heads: Sequence[Head], detector: Detector) -> tuple[Head, Head]:
    """The location and the score head.

    Raises:
        OptionError: the outputs of the network do not fit its detector.
    """
    expected = [(detector.n_priors, 4), (detector.n_priors, detector.n_classes)]
    if [head.shape for head in heads] != expected:
        raise OptionError(
            "the network's outputs do not fit its detector",
            got=", ".join(f"{head.name} {list(head.shape)}" for head in heads),
            expected=f"locations {list(expected[0])}, then scores {list(expected[1])}",
            remedy="return (locations, scores), each joined over all maps in the order of the detector's grids",
        )
    return heads[0], heads[1]


def to_post_process(
    heads: Sequence[Head], detector: Detector, *, metadata: Mapping[str, str], opset: int
) -> onnx.ModelProto:
    """The post-process as a model: int32 heads [N, P, 4] and [N, P, n_classes] in, boxes out.

    Outputs, D = min(max_detections, priors * classes), by falling score: boxes float32 [N, D, 4], corners as fractions
    of the image; scores float32 [N, D]; labels int64 [N, D], without the background; counts int64 [N]. Behind `counts`
    boxes and scores are 0 and labels -1.

    Args:
        heads: outputs of the integer network, in order.
        detector: priors and settings.
        metadata: metadata_props.
        opset: operator set, 18 or later.

    Raises:
        OptionError: the heads do not fit the detector.
    """
    locations, scores = check_heads(heads, detector)
    g = _Nodes()
    boxes = _decode(g, _real(g, locations), detector)
    softmax = g.add("Softmax", _real(g, scores), axis=-1)
    foreground = g.add("Slice", softmax, g.ints([1]), g.ints([detector.n_classes]), g.ints([2]))
    chances = g.add("Transpose", foreground, perm=[0, 2, 1])  # [N, n_labels, P]
    selected = g.add(
        "NonMaxSuppression",
        boxes,
        chances,
        g.ints([detector.max_per_class]),
        g.floats([detector.iou_threshold]),
        g.floats([detector.score_threshold]),
    )  # [M, 3]: image, class, prior
    # Back into a dense tensor, 0 where nothing was selected: so TopK works image by image, whatever their number.
    empty = g.add("ConstantOfShape", g.add("Shape", chances), value=numpy_helper.from_array(np.zeros(1, np.float32)))
    dense = g.add("ScatterND", empty, selected, g.add("GatherND", chances, selected))
    n_values = detector.n_priors * (detector.n_classes - 1)
    n_found = min(detector.max_detections, n_values)
    best, place = g.add_many(
        "TopK", [g.add("Reshape", dense, g.ints([-1, n_values])), g.ints([n_found])], 2, axis=-1, largest=1, sorted=1
    )
    _outputs(g, boxes, best, place, detector.n_priors)
    n_priors, n_classes = detector.n_priors, detector.n_classes
    graph = helper.make_graph(
        g.nodes,
        "post_process",
        [
            helper.make_tensor_value_info(locations.name, TensorProto.INT32, ["N", n_priors, 4]),
            helper.make_tensor_value_info(scores.name, TensorProto.INT32, ["N", n_priors, n_classes]),
        ],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["N", n_found, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", n_found]),
            helper.make_tensor_value_info("labels", TensorProto.INT64, ["N", n_found]),
            helper.make_tensor_value_info("counts", TensorProto.INT64, ["N"]),
        ],
        initializer=g.initializers,
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(
        graph, opset_imports=opsets, producer_name="qexport", ir_version=helper.find_min_ir_version_for(opsets)
    )
    helper.set_model_props(model, {FORMAT_KEY: POST_PROCESS_FORMAT, **metadata})
    return model


def _real(g: _Nodes, head: Head) -> str:
    return g.add("Mul", g.add("Cast", head.name, to=TensorProto.FLOAT), g.floats(head.scale))


def _decode(g: _Nodes, locations: str, detector: Detector) -> str:
    """qexport.detection.decode_boxes."""
    priors = detector.priors()
    centres, sizes = g.constant(priors[:, :2]), g.constant(priors[:, 2:])
    v_centre, v_size = (g.floats(v) for v in detector.variances)
    shift, stretch = g.add_many("Split", [locations, g.ints([2, 2])], 2, axis=-1)
    centre = g.add("Add", centres, g.add("Mul", g.add("Mul", v_centre, shift), sizes))
    power = g.add("Min", g.add("Mul", v_size, stretch), g.floats(MAX_LOG_SCALE))
    half = g.add("Div", g.add("Mul", sizes, g.add("Exp", power)), g.floats(2))
    corners = g.add("Concat", g.add("Sub", centre, half), g.add("Add", centre, half), axis=-1)
    return g.add("Clip", corners, g.floats(0), g.floats(1))


def _outputs(g: _Nodes, boxes: str, best: str, place: str, n_priors: int) -> None:
    """best [N, D] and its flat places, class by class, -> the four outputs."""
    valid = g.add("Greater", best, g.floats(0))
    prior = g.add("Mod", place, g.ints(n_priors))
    found = g.add("GatherND", boxes, g.add("Unsqueeze", prior, g.ints([-1])), batch_dims=1)
    g.add("Where", g.add("Unsqueeze", valid, g.ints([-1])), found, g.floats(0), output="boxes")
    g.add("Identity", best, output="scores")
    g.add("Where", valid, g.add("Div", place, g.ints(n_priors)), g.ints(-1), output="labels")
    counted = g.add("Cast", valid, to=TensorProto.INT64)
    g.add("ReduceSum", counted, g.ints([1]), keepdims=0, output="counts")


class _Nodes:
    """Nodes and constants as they are added; values are numbered."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []

    def constant(self, array: NDArray) -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def ints(self, values: int | list[int]) -> str:
        return self.constant(np.array(values, np.int64))

    def floats(self, values: float | list[float]) -> str:
        return self.constant(np.array(values, np.float32))

    def add(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def add_many(self, op: str, inputs: list[str], n_outputs: int, **attributes: Any) -> list[str]:
        names = [f"{op.lower()}_{len(self.nodes)}_{i}" for i in range(n_outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=names[0], **attributes))
        return names

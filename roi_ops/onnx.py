"""The operators in ONNX's own: what ``torch.onnx.export`` writes for a model that contains them.

::

    torch.onnx.export(model, args, "model.onnx", custom_translation_table=roi_ops.onnx.translations())

The older exporter (``dynamo=False``) knows the same translation after ``roi_ops.onnx.register()``. Nothing but standard
operators is written, so that every engine runs the file. Another number of boxes and other sizes of maps may follow.

RoIAlign becomes ``RoiAlign``, one for each map with the boxes of its level. The maximum of its samples becomes
``RoiAlign`` of finer bins and ``MaxPool``; RoIPool becomes ``MaxRoiPool``. ONNX has nothing for PrRoIPool, whose bins
cover any number of pixels, nor for the maximum of an adaptive number of samples (its own ``mode="max"`` is the largest
weighted neighbour).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from roi_ops import ops
from roi_ops.geometry import Geometry
from roi_ops.levels import EPSILON

OPSET = 16
"""``RoiAlign`` has had both kinds of coordinates since this version of ONNX's operators."""

KINDS = ("align", "align_aligned", "align_max", "align_aligned_max", "pool")

# ``node(name, *inputs, **attributes)`` adds a node to the graph and returns its first output. Inputs are values of the
# graph, or tensors, which become constants.
Node = Callable[..., Any]


class UnsupportedError(NotImplementedError):
    """ONNX has no operators that compute this."""


def check(kind: str, sampling_ratio: int) -> None:
    """Raise :class:`UnsupportedError` if ONNX has no operators for this kind (one of :mod:`roi_ops.geometry`)."""
    if kind not in KINDS:
        what = "PrRoIPool" if kind == "prroi" else kind
        raise UnsupportedError(f"ONNX has no operators that compute {what}; RoIAlign and RoIPool can be exported")
    if kind.endswith("_max") and sampling_ratio <= 0:
        raise UnsupportedError(
            f"ONNX has no operators that compute RoIAlign with mode='max' and sampling_ratio={sampling_ratio}, the "
            "maximum of an adaptive number of samples; with a sampling_ratio above 0 it can be exported"
        )


def translations() -> dict[Callable, Callable]:
    """The argument ``custom_translation_table`` of ``torch.onnx.export``.

    Raises:
        ImportError: onnxscript is not installed, which ``torch.onnx.export`` needs.
    """
    from onnxscript import ir, opset18

    operators: Any = opset18

    def node(name: str, *inputs: Any, **attributes: Any) -> Any:
        constant = lambda tensor: operators.Constant(value=ir.tensor(tensor.numpy()))
        values = [constant(x) if isinstance(x, torch.Tensor) else x for x in inputs]
        output = getattr(operators, name)(*values, **attributes)
        return output[0] if isinstance(output, Sequence) else output  # MaxPool has positions, too

    # The exporter reads from the annotations which arguments are attributes.
    def _(features, boxes, channels_last: bool, scales: Sequence[float], kind: str, pooled_h: int, pooled_w: int,
          sampling_ratio: int, k_min: int, k_max: int, canonical_scale: float, canonical_level: float):  # fmt: skip
        geometry = Geometry(
            list(scales), kind, pooled_h, pooled_w, sampling_ratio, k_min, k_max, canonical_scale, canonical_level
        )
        return translate(node, features, boxes, geometry)

    @functools.wraps(_)
    def with_positions(*args: Any, **kwargs: Any) -> Any:
        pooled = _(*args, **kwargs)
        # Only a backward pass reads the positions of the maxima. The exporter wants a value of their type.
        return pooled, node("CastLike", pooled, torch.tensor(0, dtype=torch.int32))

    return {ops.OPERATORS["linear_forward"]: _, ops.OPERATORS["max_forward"]: with_positions}


def register() -> None:
    """Make the older exporter, ``torch.onnx.export(dynamo=False)``, write the operators from now on."""
    from torch.onnx import register_custom_op_symbolic, symbolic_helper

    def linear(graph: Any, features: Any, boxes: Any, channels_last: Any, *geometry: Any) -> Any:
        maps = symbolic_helper._unpack_list(features)
        kinds = ("fs", "s", "i", "i", "i", "i", "i", "f", "f")
        values = [symbolic_helper._parse_arg(*pair) for pair in zip(geometry, kinds, strict=True)]  # type: ignore[arg-type]
        return translate(functools.partial(_add, graph), maps, boxes, Geometry(*values))

    def largest(graph: Any, *args: Any) -> Any:
        return linear(graph, *args), None

    register_custom_op_symbolic("roi_ops::linear_forward", linear, OPSET)
    register_custom_op_symbolic("roi_ops::max_forward", largest, OPSET)


def _add(graph: Any, name: str, *inputs: Any, **attributes: Any) -> Any:
    """A node of the older exporter's graph, which is told the type of an attribute by its name."""
    letters = {int: "i", float: "f", str: "s"}
    values = [graph.op("Constant", value_t=x) if isinstance(x, torch.Tensor) else x for x in inputs]
    typed = {
        f"{key}_{letters[type(value[0] if isinstance(value, list) else value)]}": value
        for key, value in attributes.items()
    }
    return graph.op(name, *values, **typed)


# ------------------------------------------------------------------------------------- the translation
def translate(node: Node, features: Sequence[Any], boxes: Any, geometry: Geometry) -> Any:
    """The nodes of one call of ``linear_forward`` or ``max_forward``, without channels_last and the argmax.

    Args:
        node: adds a node to the graph.
        features: the maps, [N, C, H_l, W_l], any float type.
        boxes: [K, 5], float32 or double.
        geometry: see :class:`~roi_ops.geometry.Geometry`.

    Returns:
        [K, C, pooled_h, pooled_w] in the type of the features.

    Raises:
        UnsupportedError: ONNX has no operators for this.
    """
    check(geometry.kind, geometry.sampling_ratio)
    level = _levels(node, boxes, geometry, len(features))
    rows, pooled = [], []
    for number, feature in enumerate(features):
        there = node("NonZero", node("Equal", level, torch.tensor(number)))  # [1, k]
        rows.append(node("Transpose", there, perm=[1, 0]))
        rois = node("Gather", boxes, node("Reshape", there, torch.tensor([-1])), axis=0)
        scale = geometry.scales[number]
        pooled.append(_pool(node, node("CastLike", feature, boxes), rois, geometry, scale))
    count = node("Gather", node("Shape", boxes), torch.tensor([0]), axis=0)
    channels = node("Gather", node("Shape", features[0]), torch.tensor([1]), axis=0)
    shape = node("Concat", count, channels, torch.tensor([geometry.pooled_h, geometry.pooled_w]), axis=0)
    zero = node("Expand", node("CastLike", torch.tensor(0.0), boxes), shape)
    out = node("ScatterND", zero, node("Concat", *rows, axis=0), node("Concat", *pooled, axis=0))
    return node("CastLike", out, features[0])


def _levels(node: Node, boxes: Any, geometry: Geometry, maps: int) -> Any:
    """The map of each box, int64 [K]; -1 for those that pool to zero. As :func:`roi_ops.levels.assign_levels`."""
    number = lambda value: node("CastLike", torch.tensor(value, dtype=torch.float64), boxes)
    column = lambda values, index: node("Gather", values, torch.tensor(index), axis=1)
    finite = node("Not", node("Or", node("IsNaN", boxes), node("IsInf", boxes)))
    usable = functools.reduce(functools.partial(node, "And"), [column(finite, i) for i in range(5)])
    if maps == 1:
        return node("Where", usable, torch.tensor(0), torch.tensor(-1))
    x1, y1, x2, y2 = (column(boxes, i) for i in range(1, 5))
    area = node("Mul", node("Sub", x2, x1), node("Sub", y2, y1))
    usable = node("And", usable, node("Not", node("Less", area, number(0.0))))
    ratio = node("Div", node("Sqrt", area), number(geometry.canonical_scale))
    level = node("Add", number(geometry.canonical_level), node("Div", node("Log", ratio), number(math.log(2))))
    level = node("Floor", node("Add", level, number(EPSILON)))
    level = node("Min", node("Max", level, number(geometry.k_min)), number(geometry.k_max))
    # What cannot be a whole number is replaced before it becomes one.
    level = node("Where", usable, node("Sub", level, number(geometry.k_min)), number(-1.0))
    return node("CastLike", level, torch.tensor(0))


def _pool(node: Node, feature: Any, rois: Any, geometry: Geometry, scale: float) -> Any:
    """Pool boxes [k, 5] from one map."""
    height, width, ratio = geometry.pooled_h, geometry.pooled_w, geometry.sampling_ratio
    if geometry.kind == "pool":
        return node("MaxRoiPool", feature, rois, pooled_shape=[height, width], spatial_scale=scale)
    largest = geometry.kind.endswith("_max")
    images = node("CastLike", node("Gather", rois, torch.tensor(0), axis=1), torch.tensor(0))
    fine = ratio if largest else 1  # each sample is a bin of a grid that is finer
    samples = node(
        "RoiAlign",
        feature,
        node("Gather", rois, torch.tensor([1, 2, 3, 4]), axis=1),
        images,
        coordinate_transformation_mode="half_pixel" if geometry.aligned else "output_half_pixel",
        output_height=height * fine,
        output_width=width * fine,
        sampling_ratio=1 if largest else max(ratio, 0),
        spatial_scale=scale,
    )
    return node("MaxPool", samples, kernel_shape=[ratio, ratio], strides=[ratio, ratio]) if largest else samples

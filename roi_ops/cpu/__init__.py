"""The CPU backend: C++ kernels without PyTorch, called on the addresses and strides of tensors.

The seven functions are those of :mod:`roi_ops.reference`, with the same arguments, results and errors. Results are
bitwise the same from run to run and for any number of threads. Threads follow ``torch.get_num_threads()``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from roi_ops import maps
from roi_ops.cpu import memory
from roi_ops.geometry import KIND_NUMBERS

_INTERFACE = 1  # module.cpp has the same number

try:
    from roi_ops.cpu import _kernels  # type: ignore[attr-defined]
except ImportError as error:
    _missing: str | None = f"the C++ kernels were not built (no C++ compiler during the installation?): {error}"
else:
    _missing = None
    if getattr(_kernels, "INTERFACE", None) != _INTERFACE:
        _missing = "the C++ kernels were built from other sources than these: install the project again"

__all__ = [
    "available",
    "instruction_set",
    "linear_backward_boxes",
    "linear_backward_features",
    "linear_forward",
    "max_backward_boxes",
    "max_backward_features",
    "max_forward",
    "max_gather",
    "use_instruction_set",
    "why_not",
]

_TYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
# Numbers of the operators in module.cpp.
_LINEAR_FORWARD, _LINEAR_FEATURES, _LINEAR_BOXES, _MAX_FORWARD, _MAX_GATHER, _MAX_FEATURES, _MAX_BOXES = range(7)


def available() -> bool:
    """Whether the kernels were built for this Python."""
    return _missing is None


def why_not() -> str | None:
    """Why the kernels are not there, in words; None if they are."""
    return _missing


def instruction_set() -> str:
    """Name of the instruction set in use: "avx512", "avx2" or "baseline"; "none" without the kernels."""
    return _kernels.use("") if _missing is None else "none"


def use_instruction_set(name: str = "") -> str:
    """Use the kernels of another instruction set, e.g. to compare them; "" for the best this processor has.

    Raises:
        ValueError: this processor or build has no such kernels.
    """
    return _kernels.use(name)


def linear_forward(features: list[Tensor], boxes: Tensor, channels_last: bool, *geom: Any) -> Tensor:
    """Pooled features, Tensor[K, C, pooled_h, pooled_w] in the features' dtype."""
    first = features[0]
    out = _empty((boxes.shape[0], first.shape[1], geom[2], geom[3]), first.dtype, channels_last)
    _run(_LINEAR_FORWARD, features, boxes, geom, [channels_last, out.data_ptr()])
    return out


def linear_backward_features(
    grad: Tensor, boxes: Tensor, sizes: list[int], channels_last: list[bool], *geom: Any
) -> list[Tensor]:
    """Gradient of :func:`linear_forward` with respect to each feature map, given that of its result."""
    gradients, numbers = _gradients(sizes, channels_last, grad.dtype)
    _run(_LINEAR_FEATURES, gradients, boxes, geom, [*_strided(grad), *numbers])
    return gradients


def linear_backward_boxes(grad: Tensor, features: list[Tensor], boxes: Tensor, *geom: Any) -> Tensor:
    """Gradient of :func:`linear_forward` with respect to ``boxes``, Tensor[K, 5]; column 0 is zero."""
    out = torch.empty_like(boxes)
    _run(_LINEAR_BOXES, features, boxes, geom, [*_strided(grad), False, out.data_ptr()])
    return out


def max_forward(features: list[Tensor], boxes: Tensor, channels_last: bool, *geom: Any) -> tuple[Tensor, Tensor]:
    """Largest value of each bin and its position, int32; see :func:`roi_ops.reference.max_forward`."""
    first = features[0]
    shape = (boxes.shape[0], first.shape[1], geom[2], geom[3])
    out, argmax = _empty(shape, first.dtype, channels_last), _empty(shape, torch.int32, channels_last)
    _run(_MAX_FORWARD, features, boxes, geom, [channels_last, out.data_ptr(), argmax.data_ptr()])
    return out, argmax


def max_gather(features: list[Tensor], argmax: Tensor, boxes: Tensor, *geom: Any) -> Tensor:
    """Values of ``features`` where ``argmax`` of :func:`max_forward` points, Tensor[K, C, pooled_h, pooled_w]."""
    out = _empty(tuple(argmax.shape), features[0].dtype, False)
    _run(_MAX_GATHER, features, boxes, geom, [*_strided(argmax), False, out.data_ptr()])
    return out


def max_backward_features(
    grad: Tensor, argmax: Tensor, boxes: Tensor, sizes: list[int], channels_last: list[bool], *geom: Any
) -> list[Tensor]:
    """Gradient of :func:`max_forward` with respect to each feature map, given that of its values."""
    gradients, numbers = _gradients(sizes, channels_last, grad.dtype)
    _run(_MAX_FEATURES, gradients, boxes, geom, [*_strided(grad), *_strided(argmax), *numbers])
    return gradients


def max_backward_boxes(grad: Tensor, argmax: Tensor, features: list[Tensor], boxes: Tensor, *geom: Any) -> Tensor:
    """Gradient of :func:`max_forward` (align kinds) with respect to ``boxes``, Tensor[K, 5]."""
    out = torch.empty_like(boxes)
    _run(_MAX_BOXES, features, boxes, geom, [*_strided(grad), *_strided(argmax), False, out.data_ptr()])
    return out


def _run(operator: int, features: list[Tensor], boxes: Tensor, geom: Sequence[Any], rest: list[Any]) -> None:
    scales, kind, pooled_h, pooled_w, sampling_ratio, k_min, k_max, canonical_scale, canonical_level = geom
    images, channels = features[0].shape[:2]
    boxes = boxes.contiguous()  # the kernels read rows of five
    numbers = [
        KIND_NUMBERS[kind],
        _TYPES[features[0].dtype],
        torch.get_num_threads(),
        images,
        channels,
        boxes.shape[0],
        boxes.data_ptr(),
        pooled_h,
        pooled_w,
        sampling_ratio,
        k_min,
        k_max,
        canonical_scale,
        canonical_level,
        len(features),
    ]
    for scale, feature in zip(scales, features, strict=True):
        numbers.append(scale)
        numbers += feature.shape[2:]
        numbers.append(feature.data_ptr())
        numbers += feature.stride()
    numbers += rest
    bad = _kernels.run(operator, numbers)
    if bad >= 0:
        there = f"outside 0..{images - 1}" if images else "of a batch without images"
        raise ValueError(f"image index {boxes[bad, 0].item():g} of box {bad} is {there}")


def _strided(tensor: Tensor) -> list[int]:
    return [tensor.data_ptr(), *tensor.stride()]


def _empty(shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool) -> Tensor:
    return memory.empty_strided(shape, maps.strides(shape, channels_last), dtype)[0]


def _gradients(sizes: list[int], channels_last: list[bool], dtype: torch.dtype) -> tuple[list[Tensor], list[int]]:
    """Memory for the gradient of each map, in its memory format, and the numbers that describe it."""
    gradients: list[Tensor] = []
    numbers: list[int] = []
    for shape, last in zip(maps.shapes(sizes), channels_last, strict=True):
        strides = maps.strides(shape, last)
        gradient, zeroed = memory.empty_strided(shape, strides, dtype)
        gradients.append(gradient)
        numbers += (zeroed, gradient.data_ptr(), *strides)
    return gradients, numbers

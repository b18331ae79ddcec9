"""What ``torch.jit.script`` compiles where it meets one of our functions.

TorchScript takes neither keyword-only arguments nor most of the Python that checks arguments. So each function has a
form here that it can compile, with the same arguments, which reaches the function through an operator: a schema whose
kernel is the function itself. ``__prepare_scriptable__`` is the attribute in which ``torch.jit.script`` looks for it.

The kernels stay Python. A scripted model can be saved, and loaded after ``import roi_ops``; a process without Python
cannot run it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.jit.annotations import BroadcastingList2

from roi_ops import functional, levels
from roi_ops.ops import library

_LEVELS = "*, float canonical_scale, float canonical_level, bool channels_last"
_POOL = "Tensor[] features, Tensor boxes, int[] output_size, float[] spatial_scales"


def _define(name: str, schema: str, kernel: Callable) -> None:
    library.define(name + schema)
    library.impl(name, kernel, "CompositeImplicitAutograd")


def _rows(boxes: list[Tensor], feature: Tensor) -> Tensor:
    dtype = torch.float64 if any(b.dtype == torch.float64 for b in boxes) else torch.float32
    return functional._boxes_tensor(boxes, feature, dtype)


def _map_scales(features: list[Tensor], heights: list[int], widths: list[int]) -> list[float]:
    return levels.map_scales(features, list(zip(heights, widths, strict=True)))


_define(
    "multiscale_roi_align",
    f"({_POOL}, int sampling_ratio, bool aligned, {_LEVELS}, str mode) -> Tensor",
    functional.multiscale_roi_align,
)
_define("multiscale_roi_pool", f"({_POOL}, {_LEVELS}) -> Tensor", functional.multiscale_roi_pool)
_define("multiscale_prroi_pool", f"({_POOL}, {_LEVELS}) -> Tensor", functional.multiscale_prroi_pool)
_define("rois", "(Tensor[] boxes, Tensor feature) -> Tensor", _rows)
_define("map_scales", "(Tensor[] features, int[] heights, int[] widths) -> float[]", _map_scales)


# ------------------------------------------------------------------------------------------ the forms
def _rois(boxes: Tensor | list[Tensor], feature: Tensor) -> Tensor:
    if isinstance(boxes, Tensor):
        return boxes
    return torch.ops.roi_ops.rois(boxes, feature)


def multiscale_roi_align(
    features: list[Tensor],
    boxes: Tensor | list[Tensor],
    output_size: BroadcastingList2[int],
    spatial_scales: list[float],
    sampling_ratio: int = -1,
    aligned: bool = False,
    canonical_scale: float = 224.0,
    canonical_level: float = 4.0,
    mode: str = "avg",
    channels_last: bool = False,
) -> Tensor:
    """:func:`roi_ops.multiscale_roi_align`."""
    return torch.ops.roi_ops.multiscale_roi_align(
        features,
        _rois(boxes, features[0]),
        output_size,
        spatial_scales,
        sampling_ratio,
        aligned,
        mode=mode,
        canonical_scale=canonical_scale,
        canonical_level=canonical_level,
        channels_last=channels_last,
    )


def multiscale_roi_pool(
    features: list[Tensor],
    boxes: Tensor | list[Tensor],
    output_size: BroadcastingList2[int],
    spatial_scales: list[float],
    canonical_scale: float = 224.0,
    canonical_level: float = 4.0,
    channels_last: bool = False,
) -> Tensor:
    """:func:`roi_ops.multiscale_roi_pool`."""
    return torch.ops.roi_ops.multiscale_roi_pool(
        features,
        _rois(boxes, features[0]),
        output_size,
        spatial_scales,
        canonical_scale=canonical_scale,
        canonical_level=canonical_level,
        channels_last=channels_last,
    )


def multiscale_prroi_pool(
    features: list[Tensor],
    boxes: Tensor | list[Tensor],
    output_size: BroadcastingList2[int],
    spatial_scales: list[float],
    canonical_scale: float = 224.0,
    canonical_level: float = 4.0,
    channels_last: bool = False,
) -> Tensor:
    """:func:`roi_ops.multiscale_prroi_pool`."""
    return torch.ops.roi_ops.multiscale_prroi_pool(
        features,
        _rois(boxes, features[0]),
        output_size,
        spatial_scales,
        canonical_scale=canonical_scale,
        canonical_level=canonical_level,
        channels_last=channels_last,
    )


def roi_align(
    input: Tensor,
    boxes: Tensor | list[Tensor],
    output_size: BroadcastingList2[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
    mode: str = "avg",
    channels_last: bool = False,
) -> Tensor:
    """:func:`roi_ops.roi_align`."""
    return multiscale_roi_align(
        [input], boxes, output_size, [spatial_scale], sampling_ratio, aligned, mode=mode, channels_last=channels_last
    )


def roi_pool(
    input: Tensor,
    boxes: Tensor | list[Tensor],
    output_size: BroadcastingList2[int],
    spatial_scale: float = 1.0,
    channels_last: bool = False,
) -> Tensor:
    """:func:`roi_ops.roi_pool`."""
    return multiscale_roi_pool([input], boxes, output_size, [spatial_scale], channels_last=channels_last)


def prroi_pool(
    input: Tensor,
    boxes: Tensor | list[Tensor],
    output_size: BroadcastingList2[int],
    spatial_scale: float = 1.0,
    channels_last: bool = False,
) -> Tensor:
    """:func:`roi_ops.prroi_pool`."""
    return multiscale_prroi_pool([input], boxes, output_size, [spatial_scale], channels_last=channels_last)


def map_scales(features: list[Tensor], image_sizes: list[tuple[int, int]]) -> list[float]:
    """:func:`roi_ops.levels.map_scales`."""
    heights: list[int] = []
    widths: list[int] = []
    for height, width in image_sizes:
        heights.append(height)
        widths.append(width)
    return torch.ops.roi_ops.map_scales(features, heights, widths)


for _form in (roi_align, roi_pool, prroi_pool, multiscale_roi_align, multiscale_roi_pool, multiscale_prroi_pool):
    getattr(functional, _form.__name__).__prepare_scriptable__ = lambda form=_form: form
levels.map_scales.__prepare_scriptable__ = lambda: map_scales  # type: ignore[attr-defined]

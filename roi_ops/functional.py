"""The operators as functions: check the arguments, bring them into the engine's form, call it.

Signatures are torchvision's; what is ours is keyword-only and defaults to torchvision's behaviour.

Common to all:

* ``input``: Tensor[N, C, H, W] (``multiscale_`` forms: a list of them, finest first), float16, bfloat16, float32
  or float64, contiguous or channels_last, read as it is. Arithmetic is float32, float64 for float64 features.
* ``boxes``: Tensor[K, 5] (image index, x1, y1, x2, y2) or a list of N Tensor[L_i, 4], one for each image, any
  dtype. Coordinates are those of the image: multiplied by ``spatial_scale`` they are pixels of the map.
* Result: Tensor[K, C, output_h, output_w] in the dtype of the features; contiguous, channels_last on request.
* A box with a NaN or infinite coordinate pools to 0 with zero gradient. With several maps, so does a box that
  is inverted in one axis (its area is negative, so no level is its own).
* An image index out of range raises ValueError on the CPU and pools to 0 on CUDA.
* No boxes, no images or no channels give an empty result of the right shape.
* Deterministic: equal arguments give bitwise equal results and gradients.
* ``torch.compile``, ``torch.export``, ``torch.jit.script``, ``torch.fx``, ``torch.vmap`` and ``torch.func`` take them;
  forward-mode derivatives raise.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from roi_ops import autograd, dispatch, fx
from roi_ops.geometry import LINEAR_KINDS, MAX_SAMPLES
from roi_ops.levels import level_range

Boxes = Tensor | Sequence[Tensor]
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# The argmax of RoIPool is a pixel of the map, int32.
MAX_PIXELS = 2**31 - 1


@fx.node
def roi_align(
    input: Tensor,
    boxes: Boxes,
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
    *,
    mode: str = "avg",
    channels_last: bool = False,
) -> Tensor:
    """RoIAlign (He et al., Mask R-CNN, 2017): mean or maximum of bilinear samples in each bin.

    Args:
        input, boxes: see the module's docstring.
        output_size: bins, an int or (height, width).
        spatial_scale: map size over image size.
        sampling_ratio: samples a bin and axis; <= 0: adaptive, ``ceil(extent / bins)``, at most 32768.
        aligned: shift the box by half a pixel, as pixel centres want it, and do not widen it to a pixel.
        mode: "avg", or "max" for the largest sample of a bin. A sample outside [-1, H] x [-1, W] counts as 0
            in both.
        channels_last: memory format of the result.

    Differentiable twice in ``input`` and ``boxes``. A quantised ``input`` gives a result that is quantised alike, as
    torchvision's operator does; quantised ``boxes``, as Tensor[K, 5], are for a batch of one image.
    """
    if isinstance(input, Tensor) and input.is_quantized:
        pooled = roi_align(
            input.dequantize(), _dequantized(boxes, len(input)), output_size, spatial_scale, sampling_ratio, aligned,
            mode=mode, channels_last=channels_last,
        )  # fmt: skip
        return torch.quantize_per_tensor(pooled, input.q_scale(), input.q_zero_point(), input.dtype)
    return multiscale_roi_align(
        [input], boxes, output_size, [spatial_scale], sampling_ratio, aligned, mode=mode, channels_last=channels_last
    )


@fx.node
def roi_pool(
    input: Tensor,
    boxes: Boxes,
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    *,
    channels_last: bool = False,
) -> Tensor:
    """RoIPool (Girshick, Fast R-CNN, 2015): largest pixel of each bin, box and bins rounded to pixels.

    An empty bin is 0. The gradient goes to the first maximum in row-major order; boxes have none.
    Coordinates on the map are exact up to 2^24 pixels.
    """
    return multiscale_roi_pool([input], boxes, output_size, [spatial_scale], channels_last=channels_last)


@fx.node
def prroi_pool(
    input: Tensor,
    boxes: Boxes,
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    *,
    channels_last: bool = False,
) -> Tensor:
    """PrRoIPool (Jiang et al., IoU-Net, 2018): exact mean over each bin of the bilinearly continued map.

    The map is zero outside; a box of no area pools to 0. Differentiable twice in ``input`` and ``boxes``.
    """
    return multiscale_prroi_pool([input], boxes, output_size, [spatial_scale], channels_last=channels_last)


@fx.node
def multiscale_roi_align(
    features: Sequence[Tensor],
    boxes: Boxes,
    output_size: int | Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int = -1,
    aligned: bool = False,
    *,
    canonical_scale: float = 224,
    canonical_level: float = 4,
    mode: str = "avg",
    channels_last: bool = False,
) -> Tensor:
    """:func:`roi_align` on a pyramid: each box from the map that fits its size, all in one call.

    Args:
        features: Tensor[N, C, H_l, W_l] for each level, finest first, each half the size of the one before.
        spatial_scales: map size over image size of each level.
        canonical_scale, canonical_level: a box of this side (image pixels) is pooled from the map of scale
            2 ** -canonical_level (Feature Pyramid Networks, equation 1).
    """
    if mode not in ("avg", "max"):
        raise ValueError(f"mode='{mode}': must be 'avg' or 'max'")
    sampling_ratio = _integer("sampling_ratio", sampling_ratio)
    if sampling_ratio > MAX_SAMPLES:
        raise ValueError(f"sampling_ratio={sampling_ratio}: must be at most {MAX_SAMPLES}")
    kind = ("align_aligned" if aligned else "align") + ("_max" if mode == "max" else "")
    levels = _Levels(spatial_scales, canonical_scale, canonical_level)
    return _pool(features, boxes, _Bins(kind, output_size, sampling_ratio), levels, channels_last)


@fx.node
def multiscale_roi_pool(
    features: Sequence[Tensor],
    boxes: Boxes,
    output_size: int | Sequence[int],
    spatial_scales: Sequence[float],
    *,
    canonical_scale: float = 224,
    canonical_level: float = 4,
    channels_last: bool = False,
) -> Tensor:
    """:func:`roi_pool` on a pyramid; its arguments are those of :func:`multiscale_roi_align` that it has."""
    levels = _Levels(spatial_scales, canonical_scale, canonical_level)
    return _pool(features, boxes, _Bins("pool", output_size), levels, channels_last)


@fx.node
def multiscale_prroi_pool(
    features: Sequence[Tensor],
    boxes: Boxes,
    output_size: int | Sequence[int],
    spatial_scales: Sequence[float],
    *,
    canonical_scale: float = 224,
    canonical_level: float = 4,
    channels_last: bool = False,
) -> Tensor:
    """:func:`prroi_pool` on a pyramid; its arguments are those of :func:`multiscale_roi_align` that it has."""
    levels = _Levels(spatial_scales, canonical_scale, canonical_level)
    return _pool(features, boxes, _Bins("prroi", output_size), levels, channels_last)


# ------------------------------------------------------------------------------------------- arguments
class _Bins(NamedTuple):
    kind: str
    output_size: int | Sequence[int]
    sampling_ratio: int = 0


class _Levels(NamedTuple):
    spatial_scales: Sequence[float]
    canonical_scale: float
    canonical_level: float


def _pool(features: Sequence[Tensor], boxes: Boxes, bins: _Bins, levels: _Levels, channels_last: bool) -> Tensor:
    maps = _check_features(features)
    if len(levels.spatial_scales) != len(maps):
        raise ValueError(f"{len(maps)} feature maps but {len(levels.spatial_scales)} spatial scales")
    scales = [float(scale) for scale in levels.spatial_scales]
    if not all(0 < scale < float("inf") for scale in scales):
        raise ValueError(f"spatial scales must be positive numbers, got {scales}")
    canonical_scale, canonical_level = float(levels.canonical_scale), float(levels.canonical_level)
    if not 0 < canonical_scale < float("inf"):
        raise ValueError(f"canonical_scale={canonical_scale}: must be a positive number")
    if not math.isfinite(canonical_level):
        raise ValueError(f"canonical_level={canonical_level}: must be a finite number")
    if bins.kind == "pool" and any(f.shape[2] * f.shape[3] > MAX_PIXELS for f in maps):
        shapes = [tuple(f.shape) for f in maps]
        raise ValueError(f"RoIPool keeps positions as int32: maps of at most {MAX_PIXELS} pixels, got shapes {shapes}")
    pooled_h, pooled_w = _pair(bins.output_size)
    dtype = torch.float64 if maps[0].dtype == torch.float64 else torch.float32
    rois = _boxes_tensor(boxes, maps[0], dtype)
    dispatch.refuse_forward_mode([*maps, rois])
    k_min, k_max = level_range(scales)
    args = (maps, rois, channels_last, scales, bins.kind, pooled_h, pooled_w, bins.sampling_ratio, k_min, k_max,
            canonical_scale, canonical_level)  # fmt: skip
    if bins.kind in LINEAR_KINDS:
        return autograd.pool("linear_forward", *args)
    return autograd.pool("max_forward", *args)[0]


def _check_features(features: Sequence[Tensor]) -> list[Tensor]:
    maps = list(features)
    if not maps:
        raise ValueError("no feature maps given")
    first = maps[0]
    for i, f in enumerate(maps):
        if not isinstance(f, Tensor) or f.dim() != 4 or f.dtype not in DTYPES:
            what = f"{f.dtype} of shape {tuple(f.shape)}" if isinstance(f, Tensor) else type(f).__name__
            raise ValueError(
                f"feature map {i} must be a Tensor[N, C, H, W] of float16, bfloat16, float32 or float64, got {what}"
            )
        if f.shape[:2] != first.shape[:2] or f.device != first.device:
            raise ValueError(
                "feature maps must agree in images, channels and device: map 0 is "
                f"{tuple(first.shape)} on {first.device}, map {i} is {tuple(f.shape)} on {f.device}"
            )
    if any(f.dtype != first.dtype for f in maps):  # autocast may leave levels in different dtypes
        widest = max((f.dtype for f in maps), key=lambda d: torch.finfo(d).bits)
        maps = [f.to(widest) for f in maps]
    return maps


def _integer(name: str, value: object) -> int:
    """``value`` as an int; numpy's integers and such are welcome."""
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ValueError(f"{name}={value!r}: must be an integer") from None


def _pair(output_size: int | Sequence[int]) -> tuple[int, int]:
    sides = tuple(output_size) if isinstance(output_size, Sequence) else (output_size,)
    sides = tuple(_integer("output_size", side) for side in sides)
    if len(sides) == 1:
        sides = sides * 2
    if len(sides) != 2 or min(sides) <= 0:
        raise ValueError(f"output_size must be a positive int or (height, width), got {output_size}")
    return sides


def _boxes_tensor(boxes: Boxes, feature: Tensor, dtype: torch.dtype) -> Tensor:
    """``boxes`` as a contiguous Tensor[K, 5] in the arithmetic dtype."""
    if isinstance(boxes, Tensor):
        if boxes.dim() != 2 or boxes.shape[1] != 5:
            raise ValueError(
                "boxes must be Tensor[K, 5] (image index, x1, y1, x2, y2) or a list of Tensor[L, 4], "
                f"got a tensor of shape {tuple(boxes.shape)}"
            )
        _check_box_tensor(boxes, feature)
        return boxes.to(dtype).contiguous()
    boxes = list(boxes)
    if len(boxes) != feature.shape[0]:
        raise ValueError(f"{feature.shape[0]} images but {len(boxes)} lists of boxes: give one for each image")
    for i, b in enumerate(boxes):
        if not isinstance(b, Tensor) or b.dim() != 2 or b.shape[1] != 4:
            what = f"a tensor of shape {tuple(b.shape)}" if isinstance(b, Tensor) else type(b).__name__
            raise ValueError(f"boxes of image {i} must be Tensor[L, 4] (x1, y1, x2, y2), got {what}")
        _check_box_tensor(b, feature)
    if not boxes:
        return feature.new_zeros(0, 5, dtype=dtype)
    corners = (torch.cat(boxes) if len(boxes) > 1 else boxes[0]).to(dtype)
    # Not ``len(b)``: where a call is traced, it is a number of this call, and every later one would be divided alike.
    index = torch.cat([corners.new_full((b.shape[0], 1), i) for i, b in enumerate(boxes)])
    return torch.cat([index, corners], 1)


def _dequantized(boxes: Boxes, images: int) -> Boxes:
    if not isinstance(boxes, Tensor):
        return [b.dequantize() if b.is_quantized else b for b in boxes]
    if not boxes.is_quantized:
        return boxes
    if images > 1:  # torchvision's message: the image's index is quantised with the coordinates, so it may be another
        raise RuntimeError("Only one image per batch is allowed in roi_align when quantized tensors are passed.")
    rois = boxes.dequantize()
    rois[:, 0] = 0
    return rois


def _check_box_tensor(boxes: Tensor, feature: Tensor) -> None:
    if boxes.device != feature.device:
        raise ValueError(f"boxes are on {boxes.device}, the features on {feature.device}")
    if boxes.is_complex() or boxes.dtype == torch.bool:
        raise ValueError(f"boxes must be real numbers, got {boxes.dtype}")

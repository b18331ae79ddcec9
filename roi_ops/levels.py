"""Which pyramid level a box is pooled from (Lin et al., Feature Pyramid Networks, 2017, equation 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from roi_ops import fx

# torchvision's epsilon: a box of exactly the canonical size must not fall below its level by rounding.
EPSILON = 1e-6

# Batches are padded to multiples of this many pixels in torchvision's detectors.
PADDING = 32


def assign_levels(boxes: Tensor, k_min: int, k_max: int, canonical_scale: float, canonical_level: float) -> Tensor:
    """Index of the feature map of each box: ``floor(level + log2(sqrt(area) / scale) + eps)``, clamped.

    Every operation is rounded in the dtype of ``boxes`` and in torchvision's order, so that both agree to
    the bit.

    Args:
        boxes: Tensor[K, 4] (x1, y1, x2, y2) in image pixels, float32 or float64.
        k_min, k_max: exponents of the finest and coarsest feature map (scale = 2 ** -k).
        canonical_scale, canonical_level: a square box of this side is pooled from this level.

    Returns:
        Tensor[K] int64, ``0 .. k_max - k_min``; a box with a NaN or infinite coordinate takes level 0, a box
        inverted in one axis (its area is negative) has no level: -1.
    """
    side = torch.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    level = torch.floor(canonical_level + torch.log2(side / canonical_scale) + EPSILON)
    index = level.clamp(k_min, k_max).nan_to_num(k_min - 1).to(torch.int64) - k_min
    return torch.where(torch.isfinite(boxes).all(1), index, 0)


def level_range(scales: Sequence[float]) -> tuple[int, int]:
    """Exponents ``(k_min, k_max)`` of the finest and coarsest of ``scales``, as torchvision derives them.

    Raises:
        ValueError: the scales are not those of a pyramid, each map half the size of the one before.
    """
    if len(scales) == 1:
        return 0, 0
    k_min, k_max = (int(-math.log2(s)) for s in (scales[0], scales[-1]))
    halved = [round(math.log2(scales[0] / scale)) for scale in scales[: max(k_max - k_min + 1, 1)]]
    if k_max < k_min or halved != list(range(k_max - k_min + 1)):
        raise ValueError(
            f"spatial scales {list(scales)} are not those of a pyramid: they must go from fine to coarse, "
            "each map half the size of the one before"
        )
    return k_min, k_max


@fx.node
def map_scales(features: Sequence[Tensor], image_sizes: Sequence[tuple[int, int]]) -> list[float]:
    """:func:`infer_scales` of feature maps Tensor[N, C, H_l, W_l]."""
    return infer_scales([(f.shape[-2], f.shape[-1]) for f in features], image_sizes)


def infer_scales(sizes: Sequence[tuple[int, int]], image_sizes: Sequence[tuple[int, int]]) -> list[float]:
    """Spatial scale of each feature map, a power of two, from its size and the sizes of the images.

    Padding of the batch makes the ratio of map to image too large, the more so the shorter the side: so the
    longer side decides, and the map must hold the shorter one and no more of either than the padding.
    (torchvision looks at the height only.)

    Args:
        sizes: (height, width) of each feature map.
        image_sizes: (height, width) of each image before batching, pixels.

    Raises:
        ValueError: no images, an empty image, or a map whose size contradicts the scale.
    """
    if not image_sizes:
        raise ValueError("image_sizes is empty: spatial scales cannot be inferred; give spatial_scales")
    height, width = (max(size[axis] for size in image_sizes) for axis in (0, 1))
    if height <= 0 or width <= 0:
        raise ValueError(f"images of size {(height, width)}: spatial scales cannot be inferred; give spatial_scales")
    scales = []
    for h, w in sizes:
        if h <= 0 or w <= 0:
            raise ValueError(f"a feature map of size {(h, w)} has no scale; give spatial_scales")
        # Comparisons of integers, which do not ask which side is the longer one: torch.compile then knows of sizes only
        # what those of other images fulfil as well.
        halvings = _halvings(max(height, width), max(h, w))
        scale = 2.0**-halvings
        up, down = 2 ** max(-halvings, 0), 2 ** max(halvings, 0)
        most = [-(-(side + PADDING) * up // down) + 1 for side in (height, width)]
        if min(h, w) < min(height, width) * up // down or h > most[0] or w > most[1]:
            raise ValueError(
                f"a feature map of size {(h, w)} does not belong to images of size {(height, width)}: the longer side "
                f"tells scale {scale:g}, and the other contradicts it; give spatial_scales"
            )
        scales.append(scale)
    return scales


def _halvings(of_image: int, of_map: int) -> int:
    """How often a side of an image is halved to be that of its map: log2 of their ratio, rounded."""
    n = 0
    while of_image**2 > of_map**2 * 2 ** (2 * n + 1):
        n += 1
    while of_image**2 * 2 ** (1 - 2 * n) < of_map**2:
        n -= 1
    return n

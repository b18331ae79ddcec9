"""Feature maps without their values: sizes and memory formats, all that their gradients need to know of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def describe(features: Sequence[Tensor]) -> tuple[list[int], list[bool]]:
    """Sizes N, C, H_0, W_0, H_1, W_1, ... of maps, and for each whether its gradient is channels_last.

    Args:
        features: Tensor[N, C, H_l, W_l] for each level.
    """
    images, channels, _, _ = features[0].shape
    sizes = [images, channels]
    for feature in features:
        _, _, h, w = feature.shape
        sizes += (h, w)
    return sizes, [is_channels_last(feature) for feature in features]


def shapes(sizes: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """(N, C, H_l, W_l) of each map, from the sizes of :func:`describe`."""
    images, channels, *sides = sizes
    return [(images, channels, h, w) for h, w in zip(sides[::2], sides[1::2], strict=True)]


def is_channels_last(feature: Tensor) -> bool:
    """Whether the gradient of this map is channels_last: if the map is, and is not contiguous as well."""
    return feature.is_contiguous(memory_format=torch.channels_last) and not feature.is_contiguous()


def strides(shape: Sequence[int], channels_last: bool) -> tuple[int, int, int, int]:
    """Strides of a dense tensor of this shape (N, C, H, W)."""
    _, c, h, w = shape
    return (h * w * c, 1, w * c, c) if channels_last else (c * h * w, h * w, w, 1)


def memory_format(channels_last: bool) -> torch.memory_format:
    """PyTorch's name of it."""
    return torch.channels_last if channels_last else torch.contiguous_format

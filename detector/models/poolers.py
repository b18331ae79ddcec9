"""The RoI operator between proposals and box head, built from the ``roi`` config group."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN
from torchvision.ops import MultiScaleRoIAlign as TorchvisionMultiScaleRoIAlign
from torchvision.ops import roi_pool
from torchvision.ops._utils import convert_boxes_to_roi_format
from torchvision.ops.poolers import LevelMapper

import roi_ops
from detector.config.checks import is_target
from detector.config.schema import RoiConfig
from detector.config.targets import word_of
from detector.exceptions import ConfigError
from detector.models.given_pooler import build_given_pooler


class LevelwisePooler(TorchvisionMultiScaleRoIAlign):
    """torchvision's ``roi_pool`` on the level that torchvision's ``MultiScaleRoIAlign`` would choose.

    torchvision has no such module. This is what its users write, and the peer that ours is compared with.

    Args:
        featmap_names: names of the maps, ordered from the smallest stride.
        strides: their strides in pixels of the resized image, powers of two.
        roi: the size of the output and the rule of the levels.
    """

    def __init__(self, featmap_names: list[str], strides: Sequence[int], roi: RoiConfig):
        canonical = {"canonical_scale": roi.canonical_scale, "canonical_level": roi.canonical_level}
        super().__init__(featmap_names, tuple(roi.output_size), roi.sampling_ratio, **canonical)
        self.spatial_scales = [1 / stride for stride in strides]
        finest, coarsest = (int(math.log2(stride)) for stride in (strides[0], strides[-1]))
        self.levels = LevelMapper(finest, coarsest, roi.canonical_scale, roi.canonical_level)

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Pool ``boxes`` (list of [N, 4] xyxy, pixels of the resized image) from ``x``: [sum N, C, *output_size]."""
        rois = convert_boxes_to_roi_format(boxes)
        if len(self.featmap_names) == 1:
            return self.pool(x[self.featmap_names[0]], rois, self.spatial_scales[0])
        levels = self.levels(boxes)
        pooled, rows = [], []
        for level, (name, scale) in enumerate(zip(self.featmap_names, self.spatial_scales, strict=True)):
            rows.append(torch.where(levels == level)[0])
            pooled.append(self.pool(x[name], rois[rows[-1]], scale))
        return torch.cat(pooled)[torch.cat(rows).sort()[1]]

    def pool(self, feature: Tensor, rois: Tensor, scale: float) -> Tensor:
        """Pool ``rois`` [N, 5] from one map [B, C, H, W]."""
        rois = rois.to(feature.dtype)  # the kernels take one dtype only; under autocast features and boxes differ
        return roi_pool(feature, rois, list(self.output_size), scale)


def build_pooler(
    config: RoiConfig, featmap_names: list[str], strides: Sequence[int], channels: int | None = None
) -> TorchvisionMultiScaleRoIAlign:
    """The pooler that ``config`` describes. None of ours has weights or draws random numbers.

    Args:
        config: the operator and its parameters.
        featmap_names: names of the maps that it reads, ordered from the smallest stride.
        strides: their strides in pixels of the resized image.
        channels: of the maps, if they are known, which an operator of the user's own is tried on.

    Raises:
        ConfigError: ``aligned`` or ``mode`` is set and the operator does not have it; or what
            :func:`~detector.models.given_pooler.build_given_pooler` raises.
    """
    check_parameters(config)
    if is_target(config.kind):
        return build_given_pooler(config, featmap_names, strides, channels)
    names, size, ratio = featmap_names, tuple(config.output_size), config.sampling_ratio
    rule: dict[str, Any] = {"canonical_scale": config.canonical_scale, "canonical_level": config.canonical_level}
    if config.kind == "torchvision_align":
        return TorchvisionMultiScaleRoIAlign(names, size, ratio, **rule)
    if config.kind == "torchvision_pool":
        return LevelwisePooler(names, strides, config)
    rule["spatial_scales"] = [1.0 / stride for stride in strides]
    if config.kind == "pool":
        return roi_ops.MultiScaleRoIPool(names, size, **rule)
    if config.kind == "prroi":
        return roi_ops.MultiScalePrRoIPool(names, size, **rule)
    return roi_ops.MultiScaleRoIAlign(names, size, ratio, aligned=config.aligned, mode=config.mode, **rule)


def own_kind(config: RoiConfig) -> str:
    """``roi.kind`` of the operator of ``roi_ops`` that computes what this one, which may be torchvision's, does."""
    return config.kind.removeprefix("torchvision_")


def own_pooler(model: FasterRCNN, config: RoiConfig) -> TorchvisionMultiScaleRoIAlign:
    """The pooler of ``roi_ops`` for a detector that is exported.

    torchvision's poolers select rows by value, which a graph of fixed shapes cannot hold. One of the user's stays.

    Args:
        model: the detector that was built from ``config``.
        config: the operator and its parameters.
    """
    if is_target(config.kind):
        return model.roi_heads.box_roi_pool
    config = dataclasses.replace(config, kind=own_kind(config))
    return build_pooler(config, model.roi_heads.box_roi_pool.featmap_names, pooled_strides(model))


def feature_maps(model: FasterRCNN, images: Tensor) -> dict[str, Tensor]:
    """The backbone's feature maps of a batch [B, 3, H, W] by name, in the form that ``FasterRCNN`` passes on."""
    maps: Any = model.backbone(images)
    return {"0": maps} if isinstance(maps, Tensor) else dict(maps)


def pooled_strides(model: FasterRCNN, side: int = 256) -> list[int]:
    """Strides of the maps that regions are pooled from, in pixels of the resized image.

    They are measured on an empty image of ``side`` pixels.
    """
    with torch.no_grad():
        maps = feature_maps(model, next(model.parameters()).new_zeros(1, 3, side, side))
    return [side // maps[name].shape[-1] for name in model.roi_heads.box_roi_pool.featmap_names]


def check_parameters(config: RoiConfig) -> None:
    """Refuse what the operator does not have: ``aligned`` and ``mode``. Pool and prroi ignore ``sampling_ratio``.

    Raises:
        ConfigError: it is set nevertheless.
    """
    if len(config.output_size) != 2:
        raise ConfigError(f"roi.output_size={config.output_size}: give two numbers, [height, width]")
    if config.kind == "align":
        return
    kind = word_of(config.kind)
    if config.aligned:
        raise ConfigError(f"roi.aligned=true: roi.kind={kind} has no such choice, only roi.kind=align has")
    if config.mode != "avg":
        raise ConfigError(f"roi.mode={config.mode}: roi.kind={kind} has no such choice, only roi.kind=align has")

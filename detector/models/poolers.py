"""The RoI operator between proposals and box head, built from the ``roi`` config group."""

from __future__ import annotations

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
from detector.config.schema import RoiConfig
from detector.exceptions import ConfigError


class TorchvisionMultiScaleRoIPool(TorchvisionMultiScaleRoIAlign):
    """torchvision's ``roi_pool`` on the level that torchvision's ``MultiScaleRoIAlign`` would choose.

    torchvision has no such module. This is what its users write, and the peer that ours is compared with.
    """

    def __init__(
        self,
        featmap_names: list[str],
        output_size: int | Sequence[int],
        spatial_scales: Sequence[float],
        canonical_scale: int = 224,
        canonical_level: int = 4,
    ):
        super().__init__(
            featmap_names, output_size, 0, canonical_scale=canonical_scale, canonical_level=canonical_level
        )
        self.spatial_scales = list(spatial_scales)
        finest, coarsest = (int(-math.log2(scale)) for scale in (spatial_scales[0], spatial_scales[-1]))
        self.levels = LevelMapper(finest, coarsest, canonical_scale, canonical_level)

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Pool ``boxes`` (list of [N, 4] xyxy, pixels of the resized image) from ``x``: [sum N, C, *output_size]."""
        features = [x[name] for name in self.featmap_names]
        rois = convert_boxes_to_roi_format(boxes)
        levels = self.levels(boxes)
        pooled = features[0].new_zeros((len(rois), features[0].shape[1], *self.output_size))
        for level, (feature, scale) in enumerate(zip(features, self.spatial_scales, strict=True)):
            chosen = torch.where(levels == level)[0]
            # torchvision's kernel takes one dtype only; under autocast features and boxes differ.
            result = roi_pool(feature, rois[chosen].to(feature.dtype), self.output_size, scale)
            pooled[chosen] = result.to(pooled.dtype)
        return pooled


def build_pooler(config: RoiConfig, featmap_names: list[str], strides: Sequence[int]) -> TorchvisionMultiScaleRoIAlign:
    """The pooler that ``config`` describes. No operator has weights or draws random numbers.

    Args:
        config: the operator and its parameters.
        featmap_names: names of the maps that it reads, ordered from the smallest stride.
        strides: their strides in pixels of the resized image.

    Raises:
        ConfigError: a parameter is set that the operator does not have.
    """
    check_parameters(config)
    names, size, ratio = featmap_names, tuple(config.output_size), config.sampling_ratio
    scales = [1.0 / stride for stride in strides]
    rule: dict[str, Any] = {"canonical_scale": config.canonical_scale, "canonical_level": config.canonical_level}
    if config.kind == "torchvision_align":
        return TorchvisionMultiScaleRoIAlign(names, size, ratio, **rule)
    if config.kind == "torchvision_pool":
        return TorchvisionMultiScaleRoIPool(names, size, scales, **rule)
    rule["spatial_scales"] = scales
    if config.kind == "pool":
        return roi_ops.MultiScaleRoIPool(names, size, **rule)
    if config.kind == "prroi":
        return roi_ops.MultiScalePrRoIPool(names, size, **rule)
    return roi_ops.MultiScaleRoIAlign(names, size, ratio, aligned=config.aligned, mode=config.mode, **rule)


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
    """Refuse parameters that the chosen operator would silently leave unused."""
    if len(config.output_size) != 2:
        raise ConfigError(f"roi.output_size={config.output_size}: give two numbers, [height, width]")
    if config.kind == "align":
        return
    if config.aligned:
        raise ConfigError(f"roi.aligned=true: roi.kind={config.kind} has no such choice, only roi.kind=align has")
    if config.mode != "avg":
        raise ConfigError(f"roi.mode={config.mode}: roi.kind={config.kind} has no such choice, only roi.kind=align has")

"""torchvision's RoI heads with a choice of losses, and with one box per region or one for each class."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.roi_heads import RoIHeads

from detector.config.schema import HeadConfig
from detector.models.losses import box_loss, classification_loss
from detector.models.norms import norm_layer
from detector.models.proposals import widen


class RegionHeads(RoIHeads):
    """torchvision's box branch with the losses of ``config``.

    Args:
        config: the ``model.head`` group.
        pooler: cuts regions out of the feature maps.
        box_head: computes a vector for each region from its pooled features.
        predictor: computes logits [N, K + 1] (background first) and offsets [N, 4 (K + 1)] from the vectors.
    """

    def __init__(self, config: HeadConfig, pooler: nn.Module, box_head: nn.Module, predictor: nn.Module):
        super().__init__(
            pooler,
            box_head,
            predictor,
            fg_iou_thresh=config.fg_iou_thresh,
            bg_iou_thresh=config.bg_iou_thresh,
            batch_size_per_image=config.batch_size_per_image,
            positive_fraction=config.positive_fraction,
            bbox_reg_weights=None,  # torchvision's default
            score_thresh=config.score_thresh,
            nms_thresh=config.nms_thresh,
            detections_per_img=config.detections_per_image,
        )
        self.class_loss, self.focal_gamma = config.class_loss, config.focal_gamma
        self.box_loss, self.box_loss_weight = config.box_loss, config.box_loss_weight

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Losses of ``proposals`` (list of [N_i, 4] xyxy) in training; in evaluation the detections of each image."""
        labels: list[Tensor] = []
        true_offsets: list[Tensor] = []
        if self.training:
            proposals, _, labels, true_offsets = self.select_training_samples(proposals, targets)
        logits, offsets = self.box_predictor(self.box_head(self.box_roi_pool(features, proposals, image_shapes)))
        if self.training:
            return [], self.compute_losses(logits, offsets, torch.cat(labels), torch.cat(true_offsets))
        found = self.postprocess_detections(logits, offsets, proposals, image_shapes)
        return [{"boxes": b, "labels": k, "scores": s} for b, s, k in zip(*found, strict=True)], {}

    def compute_losses(
        self, logits: Tensor, offsets: Tensor, labels: Tensor, true_offsets: Tensor
    ) -> dict[str, Tensor]:
        """``loss_classifier`` and ``loss_box_reg``, both over the number of regions as in torchvision.

        Args:
            logits: float [N, K + 1].
            offsets: float [N, 4 (K + 1)].
            labels: int64 [N]; 0 is background, which has no box.
            true_offsets: float [N, 4].
        """
        chosen = torch.where(labels > 0)[0]
        own = offsets.reshape(len(labels), -1, 4)[chosen, labels[chosen]]
        loss = box_loss(self.box_loss, own, true_offsets[chosen], self.box_coder)
        return {
            "loss_classifier": classification_loss(self.class_loss, logits, labels, self.focal_gamma),
            "loss_box_reg": self.box_loss_weight * loss / labels.numel(),
        }


def build_box_head(config: HeadConfig, pooled: tuple[int, int, int]) -> nn.Module:
    """What computes a vector [N, width] for each region from its pooled features [N, C, h, w].

    Two fully connected layers (Lin et al., Feature Pyramid Networks, 2017), or convolutions and one such layer (Wu and
    He, Group Normalization, 2018), with torchvision's names of weights.

    Args:
        config: the ``model.head`` group.
        pooled: C, h and w.
    """
    if not config.conv_depth:
        return TwoMLPHead(math.prod(pooled), config.width)
    layers = norm_layer(config.conv_norm) if config.conv_norm != "none" else None
    return FastRCNNConvFCHead(pooled, [config.conv_channels] * config.conv_depth, [config.width], layers)


class BoxPredictor(FastRCNNPredictor):
    """torchvision's predictor with outputs in float32 or longer.

    Args:
        in_channels: length C of a region's vector.
        num_classes: K + 1, background included.
        class_agnostic: all classes share one box per region, which needs fewer examples of each class.
    """

    def __init__(self, in_channels: int, num_classes: int, class_agnostic: bool = False):
        super().__init__(in_channels, num_classes)
        self.class_agnostic = class_agnostic
        if class_agnostic:
            self.bbox_pred = nn.Linear(in_channels, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits [N, K + 1] and box offsets [N, 4 (K + 1)] of vectors [N, C]."""
        logits, offsets = super().forward(x)
        if self.class_agnostic:
            offsets = offsets.repeat(1, logits.shape[1])
        return widen(logits), widen(offsets)

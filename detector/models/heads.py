"""torchvision's region proposal network and RoI heads with a choice of losses, and a predictor of one box a region."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork

from detector.config.schema import HeadConfig, RpnConfig
from detector.models.losses import box_loss, classification_loss
from detector.models.precision import FullPrecisionPredictor


class ProposalNetwork(RegionProposalNetwork):
    """torchvision's, with the box loss of ``config``.

    Args:
        config: the ``model.rpn`` group.
        anchors: places anchors on the feature maps.
        head: objectness and offsets of the anchors.
    """

    def __init__(self, config: RpnConfig, anchors: AnchorGenerator, head: nn.Module):
        super().__init__(
            anchors,
            head,
            fg_iou_thresh=config.fg_iou_thresh,
            bg_iou_thresh=config.bg_iou_thresh,
            batch_size_per_image=config.batch_size_per_image,
            positive_fraction=config.positive_fraction,
            pre_nms_top_n={"training": config.pre_nms_top_n_train, "testing": config.pre_nms_top_n_test},
            post_nms_top_n={"training": config.post_nms_top_n_train, "testing": config.post_nms_top_n_test},
            nms_thresh=config.nms_thresh,
            score_thresh=config.score_thresh,
        )
        self.box_loss, self.box_loss_weight = config.box_loss, config.box_loss_weight

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Mean loss of objectness, and loss of offsets over the number of sampled anchors.

        Args:
            objectness: logits [A, 1] of the anchors of all images.
            pred_bbox_deltas: their offsets [A, 4].
            labels: of each image float [A_i]: 1 object, 0 background, -1 neither.
            regression_targets: of each image the true offsets [A_i, 4].
        """
        positive, negative = (torch.cat(masks) for masks in self.fg_bg_sampler(labels))
        chosen = torch.where(positive)[0]
        sampled = torch.cat([chosen, torch.where(negative)[0]])
        true = torch.cat(labels)[sampled]
        loss_objectness = nn.functional.binary_cross_entropy_with_logits(objectness.flatten()[sampled], true)
        targets = torch.cat(regression_targets)[chosen]
        loss = box_loss(self.box_loss, pred_bbox_deltas[chosen], targets, self.box_coder)
        return loss_objectness, self.box_loss_weight * loss / len(sampled)


class RegionHeads(RoIHeads):
    """torchvision's heads of boxes, with the losses of ``config``.

    Args:
        config: the ``model.head`` group.
        pooler: cuts regions out of the feature maps.
        box_head: from pooled features to a vector a region.
        predictor: from vectors to class logits [N, K] and offsets [N, 4 K].
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
            bbox_reg_weights=None,  # torchvision's own
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
            logits: float [N, K].
            offsets: float [N, 4 K].
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


class AgnosticPredictor(FullPrecisionPredictor):
    """A predictor whose classes share one box a region, which needs fewer examples of each class."""

    def __init__(self, in_channels: int, num_classes: int):
        super().__init__(in_channels, num_classes)
        self.num_classes = num_classes
        self.bbox_pred = nn.Linear(in_channels, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits [N, K] and box offsets [N, 4 K], the same four for each class."""
        logits, offsets = super().forward(x)
        return logits, offsets.repeat(1, self.num_classes)

"""torchvision's region proposal network with a choice of box losses, and its numbers in float32 under autocast."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from detector.config.schema import RpnConfig
from detector.models.losses import box_loss


def widen(x: Tensor) -> Tensor:
    """``x`` in float32 if its type is shorter, else ``x`` itself.

    For the coordinates and scores of a network that autocast runs in a shorter type. In bfloat16 the integers above 256
    are no longer exact: the boxes of an 800-pixel image would be off by up to two pixels.
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


class FullPrecisionAnchorGenerator(AnchorGenerator):
    """torchvision's anchors in float32 or longer; torchvision gives them the type of the features."""

    def set_cell_anchors(self, dtype: torch.dtype, device: torch.device) -> None:
        """Move the anchors of one location to ``device``."""
        super().set_cell_anchors(torch.promote_types(dtype, torch.float32), device)


def anchor_sides(sizes: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """Width and height, float32 [len(sizes) * len(ratios), 2] in pixels, of the anchors of one location.

    Half a side is rounded to a whole pixel, as in torchvision: an anchor of size 1 has no area.
    """
    corners = AnchorGenerator.generate_anchors(None, list(sizes), list(ratios))
    return corners[:, 2:] - corners[:, :2]


class FullPrecisionRPNHead(RPNHead):
    """torchvision's RPN head with outputs in float32 or longer."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Objectness [B, A, h, w] and offsets [B, 4 A, h, w] for each map [B, C, h, w]."""
        objectness, offsets = super().forward(x)
        return [widen(o) for o in objectness], [widen(o) for o in offsets]


class ProposalNetwork(RegionProposalNetwork):
    """torchvision's region proposal network with the box loss of ``config``.

    Args:
        config: the ``model.rpn`` group.
        anchors: places anchors on the feature maps.
        head: computes objectness and offsets of the anchors.
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
            labels: for each image float [A_i]: 1 object, 0 background, -1 neither.
            regression_targets: for each image the true offsets [A_i, 4].
        """
        positive, negative = (torch.cat(masks) for masks in self.fg_bg_sampler(labels))
        chosen = torch.where(positive)[0]
        sampled = torch.cat([chosen, torch.where(negative)[0]])
        true = torch.cat(labels)[sampled]
        loss_objectness = nn.functional.binary_cross_entropy_with_logits(objectness.flatten()[sampled], true)
        targets = torch.cat(regression_targets)[chosen]
        loss = box_loss(self.box_loss, pred_bbox_deltas[chosen], targets, self.box_coder)
        return loss_objectness, self.box_loss_weight * loss / len(sampled)

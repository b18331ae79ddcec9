"""torchvision's region proposal network with a choice of box losses, and its numbers in float32 under autocast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers

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


class Predicted(NamedTuple):
    """What the head says of all anchors of a batch."""

    anchors: list[Tensor]  # for each image [A_i, 4] xyxy
    counts: list[int]  # anchors of an image on each map
    objectness: Tensor  # logits [A, 1], image after image
    offsets: Tensor  # [A, 4]


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

    def forward(
        self, images: ImageList, features: dict[str, Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The proposals of each image, [N_i, 4] xyxy with the best first, and in training the losses."""
        predicted = self.predict(images, features)
        proposals = self.propose(predicted, images.image_sizes)
        return proposals, self.losses(predicted, targets) if self.training else {}

    def predict(self, images: ImageList, features: dict[str, Tensor]) -> Predicted:
        """Objectness and offsets of all anchors on ``features``."""
        maps = list(features.values())
        objectness, offsets = self.head(maps)
        counts = [o[0].numel() for o in objectness]
        return Predicted(
            self.anchor_generator(images, maps), counts, *concat_box_prediction_layers(objectness, offsets)
        )

    def propose(self, predicted: Predicted, image_sizes: list[tuple[int, int]]) -> list[Tensor]:
        """The proposals of each image, as many as training or evaluation takes."""
        boxes = self.box_coder.decode(predicted.offsets.detach(), predicted.anchors)
        boxes = boxes.view(len(predicted.anchors), -1, 4)
        return self.filter_proposals(boxes, predicted.objectness, image_sizes, predicted.counts)[0]

    def losses(self, predicted: Predicted, targets: list[dict[str, Tensor]] | None) -> dict[str, Tensor]:
        """``loss_objectness`` and ``loss_rpn_box_reg`` of a sample of the anchors."""
        if targets is None:
            raise ValueError("the losses need targets")
        labels, boxes = self.assign_targets_to_anchors(predicted.anchors, targets)
        true_offsets = self.box_coder.encode(boxes, predicted.anchors)
        objectness, box = self.compute_loss(predicted.objectness, predicted.offsets, labels, true_offsets)
        return {"loss_objectness": objectness, "loss_rpn_box_reg": box}

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

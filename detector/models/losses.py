"""Losses of regions and anchors, with choices that torchvision's detectors do not have."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import generalized_box_iou_loss

BETA = 1 / 9  # where smooth L1 turns from a parabola to a line, as in torchvision's detectors


def classification_loss(kind: str, logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """The mean loss of class scores.

    Args:
        kind: ``cross_entropy``, or ``focal``: cross entropy times (1 - p) ** gamma, where p is the softmax probability
            of the true class (Lin et al., Focal Loss for Dense Object Detection, 2017, equation 4).
        logits: float [N, K + 1]: background, then the classes 1..K.
        labels: int64 [N] in 0..K.
        gamma: only used by ``focal``; 0 is cross entropy.
    """
    if kind == "cross_entropy":
        return functional.cross_entropy(logits, labels)
    each = functional.cross_entropy(logits, labels, reduction="none")
    # 1 - p, above 0: where p rounds to 1, the derivative of its power below 1 is infinite.
    wrong = (-torch.expm1(-each)).clamp(min=torch.finfo(each.dtype).tiny)
    return (wrong**gamma * each).mean()


def box_loss(kind: str, offsets: Tensor, targets: Tensor, coder: BoxCoder) -> Tensor:
    """The summed loss of box offsets.

    Args:
        kind: ``smooth_l1`` on the offsets, or ``giou``: 1 - GIoU of the boxes that they stand for (Rezatofighi et al.,
            Generalized Intersection over Union, 2019).
        offsets: float [N, 4], as ``coder`` encodes boxes.
        targets: float [N, 4], those of the true boxes.
        coder: gives the boxes of offsets.
    """
    if kind == "smooth_l1":
        return functional.smooth_l1_loss(offsets, targets, beta=BETA, reduction="sum")
    # All areas of GIoU scale alike if an axis is scaled, so the boxes that the offsets refer to may be any: unit
    # squares here, which keeps the result exact for boxes far from the origin.
    unit = torch.zeros_like(targets)
    unit[:, 2:] = 1
    predicted, true = (coder.decode_single(x, unit) for x in (offsets, targets))
    return generalized_box_iou_loss(predicted, true, reduction="sum")

"""Greedy non-maximum suppression whose shapes do not depend on the values, exact all the same.

``torchvision.ops.nms`` returns as many indices as there are boxes left, which a graph of fixed shapes cannot hold. Here
a mask is returned. Greedy suppression is the one solution of

    keep[i] = valid[i] and no j before i with keep[j] that overlaps i too much

and iterating this equation from "keep everything" finds it: after t rounds the first t boxes are right, and once a
round changes nothing all are. Chains of boxes that suppress each other in turn are short, so a few rounds do.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop


def suppress(boxes: Tensor, groups: Tensor | None, valid: Tensor, iou_thresh: float) -> Tensor:
    """Which boxes greedy suppression keeps.

    Args:
        boxes: float [B, N, 4] xyxy, in each row highest score first.
        groups: int64 [B, N]: only boxes of one group suppress each other; None: all do.
        valid: bool [B, N]: the others are not there.
        iou_thresh: a box goes if its IoU with one that is kept is above this.

    Returns:
        bool [B, N].
    """
    count = boxes.shape[1]
    # [B, i, j]: j suppresses i, if it comes before i
    suppresses = pairwise_iou(boxes) > float_below(iou_thresh)
    suppresses = suppresses & torch.ones(count, count, dtype=torch.bool, device=boxes.device).tril(-1)
    if groups is not None:
        suppresses = suppresses & (groups[:, :, None] == groups[:, None, :])

    def changed(before: Tensor, now: Tensor, suppresses: Tensor, valid: Tensor) -> Tensor:
        return (before != now).any()

    def round_(before: Tensor, now: Tensor, suppresses: Tensor, valid: Tensor) -> tuple[Tensor, ...]:
        after = valid & ~(suppresses & now[:, None, :]).any(2)
        return now.clone(), after, suppresses.clone(), valid.clone()

    start = (torch.zeros_like(valid), valid.clone(), suppresses, valid.clone())
    return while_loop(changed, round_, start)[1]


def float_below(value: float) -> float:
    """The largest float32 that is not above ``value``.

    An IoU is above one if it is above the other. PyTorch would round ``value`` up as well, and torchvision's ``nms``
    compares with it unrounded: 3 / 10 in float32 is above 0.3.
    """
    rounded = np.float32(value)
    return float(rounded if float(rounded) <= value else np.nextafter(rounded, np.float32("-inf")))


def pairwise_iou(boxes: Tensor) -> Tensor:
    """IoU of all pairs, float [B, N, N] for [B, N, 4] xyxy; NaN for pairs of boxes without area.

    One term after the other as torchvision's ``nms`` computes them.
    """
    x1, y1, x2, y2 = boxes.unbind(2)
    area = (x2 - x1) * (y2 - y1)

    def shared(low: Tensor, high: Tensor) -> Tensor:
        return (torch.minimum(high[:, :, None], high[:, None]) - torch.maximum(low[:, :, None], low[:, None])).clamp(0)

    common = shared(x1, x2) * shared(y1, y2)
    return common / (area[:, :, None] + area[:, None] - common)

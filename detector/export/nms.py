"""Exact greedy non-maximum suppression whose shapes do not depend on the values.

``torchvision.ops.nms`` returns one index per box that is left, which a graph of fixed shapes cannot hold. This module
returns a mask instead. Greedy suppression is the only solution of

    keep[i] = valid[i] and no j before i with keep[j] that overlaps i too much

Iterating this equation from "keep everything" finds it: after t rounds the first t boxes are right, and all boxes are
right once a round changes nothing. Chains of boxes that suppress each other in turn are short, so a few rounds suffice.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop


def suppress(boxes: Tensor, groups: Tensor | None, valid: Tensor, iou_thresh: float) -> Tensor:
    """A mask of the boxes that greedy suppression keeps.

    Args:
        boxes: float [B, N, 4] xyxy, in each row highest score first.
        groups: int64 [B, N]; only boxes of one group suppress each other. None: all boxes do.
        valid: bool [B, N]; boxes that are not valid are padding.
        iou_thresh: a box is suppressed if its IoU with a box that is kept is above this.

    Returns:
        bool [B, N].
    """
    count = boxes.shape[1]
    # [B, i, j]: whether j, which comes before i, would suppress i.
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

    A float32 IoU is above this number exactly if it is above ``value``, which torchvision's ``nms`` compares with.
    PyTorch would round ``value`` to the nearest float32, which may be larger: 3 / 10 in float32 is above 0.3.
    """
    rounded = np.float32(value)
    return float(rounded if float(rounded) <= value else np.nextafter(rounded, np.float32("-inf")))


def pairwise_iou(boxes: Tensor) -> Tensor:
    """IoU of all pairs, float [B, N, N] for [B, N, 4] xyxy; NaN for pairs of boxes without area.

    The order of operations is that of torchvision's ``nms``.
    """
    x1, y1, x2, y2 = boxes.unbind(2)
    area = (x2 - x1) * (y2 - y1)

    def shared(low: Tensor, high: Tensor) -> Tensor:
        return (torch.minimum(high[:, :, None], high[:, None]) - torch.maximum(low[:, :, None], low[:, None])).clamp(0)

    common = shared(x1, x2) * shared(y1, y2)
    return common / (area[:, :, None] + area[:, None] - common)

"""Parts of the detector whose numbers stay float32 when autocast runs the network in a shorter type.

Coordinates need it: in bfloat16 the integers above 256 are no longer exact, so an anchor of a 800-pixel image
would be off by up to two pixels. torchvision gives anchors the type of the features and decodes boxes in the
type of the predicted offsets. Scores need it for their losses.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.rpn import RPNHead


def widen(x: Tensor) -> Tensor:
    """``x`` in float32 if it is float16 or bfloat16, else ``x`` itself."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class FullPrecisionAnchorGenerator(AnchorGenerator):
    """torchvision's anchors, in float32 whatever the type of the features (float64 for float64)."""

    def set_cell_anchors(self, dtype: torch.dtype, device: torch.device) -> None:
        """Move the anchors of one location to ``device``."""
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        super().set_cell_anchors(wide, device)


class FullPrecisionRPNHead(RPNHead):
    """torchvision's RPN head; objectness and box offsets leave it in float32."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Objectness [B, A, h, w] and offsets [B, 4 A, h, w] for each map [B, C, h, w]."""
        objectness, offsets = super().forward(x)
        return [widen(o) for o in objectness], [widen(o) for o in offsets]


class FullPrecisionPredictor(FastRCNNPredictor):
    """torchvision's box predictor; class scores and box offsets leave it in float32."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits [N, K] and box offsets [N, 4 K] for box features [N, C]; K classes, background included."""
        scores, offsets = super().forward(x)
        return widen(scores), widen(offsets)

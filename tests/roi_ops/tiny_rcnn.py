"""A Faster R-CNN of torchvision that is small enough for every test: two maps, four channels, random weights."""

import torch
import torchvision
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import AnchorGenerator


class Backbone(nn.Module):
    """Gives the maps "b" and "a", of strides 4 and 8."""

    out_channels = 4

    def __init__(self, channels=3):
        super().__init__()
        self.down, self.finer, self.coarser = (
            nn.Conv2d(c, 4, 3, stride=2, padding=1) for c in (channels, 4, 4)
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        fine = self.finer(self.down(x))
        return {"b": fine, "a": self.coarser(fine)}


def tiny_rcnn(backbone=None, names=("a", "b", "lacking"), channels=3):
    """In eval mode; its pooler names a map that the backbone does not give, and the others in another order."""
    torch.manual_seed(0)
    model = FasterRCNN(
        Backbone(channels) if backbone is None else backbone,
        min_size=64,
        max_size=96,
        image_mean=[0.4] * channels,
        image_std=[0.3] * channels,
        rpn_anchor_generator=AnchorGenerator(((16,), (32,)), ((0.5, 1.0, 2.0),) * 2),
        box_roi_pool=torchvision.ops.MultiScaleRoIAlign(list(names), 3, 2, canonical_scale=40, canonical_level=3),
        box_head=TwoMLPHead(36, 16),
        box_predictor=FastRCNNPredictor(16, 3),
        box_score_thresh=0.0,
        box_detections_per_img=9,
    )
    return model.eval()


def images(channels=3, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(channels, *size, generator=generator).to(dtype) for size in ((60, 90), (80, 64))]

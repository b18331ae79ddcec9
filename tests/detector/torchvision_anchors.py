"""The IoU of boxes with all anchors that torchvision places on an image."""

import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou


def torchvision_best_iou(boxes, size, sizes, ratios, strides):
    """The highest IoU of each of ``boxes`` (xyxy, pixels of the resized image of ``size``: height, width)."""
    padded = [-(-side // 32) * 32 for side in size]
    maps = [torch.zeros(1, 1, *(-(-side // stride) for side in padded)) for stride in strides]
    generator = AnchorGenerator(tuple(map(tuple, sizes)), (tuple(ratios),) * len(sizes))
    (anchors,) = generator(ImageList(torch.zeros(1, 3, *padded), [size]), maps)
    return box_iou(torch.as_tensor(boxes, dtype=torch.float64), anchors.double()).max(dim=1).values.numpy()

"""torchvision's own detectors as they are, and after ``roi_ops.replace_roi_pooling``: training and inference."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from rich.progress import track
from torch import Tensor
from torchvision.models import detection
from torchvision.models.detection import FasterRCNN

import roi_ops
from detector.benchmark.table import Measured, compared
from detector.benchmark.timing import Bench, Row
from detector.config.schema import BenchmarkConfig

MODELS: dict[str, Callable[..., FasterRCNN]] = {
    "fasterrcnn_resnet50_fpn": detection.fasterrcnn_resnet50_fpn,
    "fasterrcnn_mobilenet_v3_large_320_fpn": detection.fasterrcnn_mobilenet_v3_large_320_fpn,
    "maskrcnn_resnet50_fpn": detection.maskrcnn_resnet50_fpn,
}
CLASSES = 21
# quick=true: few proposals, so that the heads cost little.
FEW = {
    "rpn_pre_nms_top_n_train": 50,
    "rpn_post_nms_top_n_train": 30,
    "rpn_pre_nms_top_n_test": 50,
    "rpn_post_nms_top_n_test": 30,
    "box_batch_size_per_image": 16,
    "box_detections_per_img": 10,
}


def measure(bench: Bench, config: BenchmarkConfig) -> Measured:
    """Inference on one image and a training step on two for each of :data:`MODELS`, random weights."""
    height, width = (64, 96) if config.quick else (config.image_size[0], config.image_size[1])
    rows = []
    for name in track(list(MODELS), "retrofit", disable=not config.progress_bar):
        original, replaced = pair(name, height, width, bench.device, FEW if config.quick else None)
        images, targets = batch(2, height, width, bench.device)
        ours, peer = bench.in_turn(*(partial(infer, model, images[:1]) for model in (replaced, original)))
        rows.append(Row(name, "inference, 1 image", ours, peer, "torchvision"))
        ours, peer = bench.in_turn(*(partial(step, model, images, targets) for model in (replaced, original)))
        rows.append(Row(name, "training step, 2 images", ours, peer, "torchvision"))
    inputs = (
        f"Medians, in turn; images of {height} x {width} pixels that are not resized, random weights, float32. A "
        "training step is the losses and their gradients."
    )
    return Measured("torchvision's detectors with replace_roi_pooling", inputs, [compared(rows)])


def pair(
    name: str, height: int, width: int, device: torch.device | str, counts: Mapping[str, int] | None = None
) -> tuple[Any, Any]:
    """A model as torchvision builds it, with ``counts`` of proposals, and the same with our pooling."""
    torch.manual_seed(0)
    original = MODELS[name](
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES,
        min_size=min(height, width),
        max_size=max(height, width),
        **(counts or {}),
    ).to(device)
    return original, roi_ops.replace_roi_pooling(copy.deepcopy(original))


def batch(count: int, height: int, width: int, device: torch.device | str) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """Noise with boxes of several sizes, and masks that fill them."""
    generator = torch.Generator().manual_seed(0)
    images, targets = [], []
    for _ in range(count):
        images.append(torch.rand(3, height, width, generator=generator).to(device))
        sides = min(height, width) * torch.tensor([0.15, 0.2, 0.3, 0.45, 0.7])
        low = torch.rand(len(sides), 2, generator=generator) * (torch.tensor([width, height]) - sides[:, None])
        boxes = torch.cat([low, low + sides[:, None]], 1)
        masks = torch.zeros(len(sides), height, width, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
        labels = torch.randint(1, CLASSES, (len(sides),), generator=generator)
        targets.append({k: v.to(device) for k, v in {"boxes": boxes, "labels": labels, "masks": masks}.items()})
    return images, targets


def infer(model: FasterRCNN, images: list[Tensor]) -> list[dict[str, Tensor]]:
    """Detections, no gradients."""
    model.eval()
    with torch.inference_mode():
        return model(images)


def step(model: FasterRCNN, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Losses and the gradients of their sum; anchors and proposals are sampled alike in every call."""
    model.train()
    torch.manual_seed(1)
    losses = model(images, targets)
    sum(losses.values()).backward()
    model.zero_grad()
    return losses

"""How much memory a training step will need, counted on tensors without content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN

from detector.config.checks import is_target
from detector.config.schema import Config
from detector.models.maps import without_content
from detector.training.optimiser import is_sgd

DIVISIBLE = 32  # the sides of the network's input are multiples of it


@dataclass
class Memory:
    """Bytes that one process needs."""

    weights: int  # with gradients, state of the optimiser and averaged weights
    activations: int | None  # kept for backward; None: a class of the user's does not run without numbers
    input_size: tuple[int, int, int]  # images, height and width of the batch that the activations belong to

    def __str__(self) -> str:
        images, height, width = self.input_size
        if self.activations is None:
            return f"{self.weights / 1e9:.1f} GB per process for weights, gradients and optimiser; activations unknown"
        return (
            f"about {(self.weights + self.activations) / 1e9:.1f} GB per process: weights, gradients and optimiser "
            f"{self.weights / 1e9:.1f}, activations of {images} x {height} x {width} {self.activations / 1e9:.1f} "
            "(estimated by shapes; CUDA, cuDNN and PyTorch's allocator take 1 to 2 more)"
        )


def expected_memory(model: FasterRCNN, config: Config, sizes: np.ndarray) -> Memory:
    """The memory of a step on a batch of the largest images.

    Weights count once, again as gradients, and once for each number that the optimiser (and the average) keeps.
    Activations are what backbone, pyramid, RPN head and box head keep for backward, counted in a forward pass on the
    meta device, which has shapes and no numbers; half of it in 16-bit precision. Losses, anchors and the temporary
    memory of single operations are small beside them and left out.

    Args:
        model: the detector, in training mode.
        config: of the run.
        sizes: int [M, 2], height and width of the training images.
    """
    weights = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    training = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    kept = training * (1 + (1 if is_sgd(config.optim) else 2)) + (weights if config.optim.ema else 0)
    height, width = input_size(config, sizes)
    activations: int | None = None
    try:
        activations = saved_bytes(model, config, height, width) // (1 if config.trainer.precision == "32" else 2)
    except Exception:  # whatever a network raises that wants numbers
        if not is_target(config.model.backbone):
            raise
    return Memory(weights + kept, activations, (config.data.batch_size, height, width))


def input_size(config: Config, sizes: np.ndarray) -> tuple[int, int]:
    """(height, width) of the largest image as the network gets it."""
    if config.augment.large_scale != [1.0, 1.0]:
        sizes = np.array([[config.augment.crop_size] * 2])
    short, long = max(config.model.min_size), config.model.max_size
    wanted = np.asarray(sizes, dtype=np.float64)
    scale = np.minimum(short / wanted.min(axis=1), long / wanted.max(axis=1))
    resized = np.ceil(np.floor(wanted * scale[:, None] + 1e-6) / DIVISIBLE).astype(int) * DIVISIBLE
    height, width = resized[resized.prod(axis=1).argmax()].tolist()
    return height, width


def saved_bytes(model: FasterRCNN, config: Config, height: int, width: int) -> int:
    """Bytes that a forward pass in float32 keeps for backward, without the weights."""
    backbone, rpn_head = without_content(model.backbone), without_content(model.rpn.head)
    box_head = without_content(model.roi_heads.box_head)
    images, (high, wide) = config.data.batch_size, config.roi.output_size
    boxes = images * config.model.head.batch_size_per_image
    own = {t.untyped_storage()._cdata for part in (backbone, rpn_head, box_head) for t in part.parameters()}
    saved: dict[int, tuple[int, Tensor]] = {}  # with the tensors: another storage may get the number of a freed one

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        features: Any = backbone(torch.empty(images, 3, height, width, device="meta"))
        maps = [features] if isinstance(features, Tensor) else list(features.values())
        graph = [*rpn_head(maps)]
        graph.append(box_head(torch.empty(boxes, maps[0].shape[1], high, wide, device="meta", requires_grad=True)))
    return sum(size for size, _ in saved.values())

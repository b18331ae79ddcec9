"""Preprocessing inside the network: images to one batch, and detections back to the images' coordinates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform


class DetectionTransform(GeneralizedRCNNTransform):
    """torchvision's normalisation, resizing and batching, with three differences.

    - Where ``min_size`` has several values, one is drawn for each batch, not for each image, so that a batch needs
      little padding. PyTorch's generator is advanced as in torchvision.
    - The batch has the memory format of the network.
    - A box that has no area after resizing is dropped; torchvision stops training with an assertion.
    """

    def __init__(self, *args: Any, channels_last: bool = False):
        super().__init__(*args)
        self.channels_last = channels_last
        self._drawn: int | None = None

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[ImageList, list[dict[str, Tensor]] | None]:
        """Batch ``images`` (float [3, H, W] in 0..1 each) and scale the boxes of ``targets`` with them."""
        self._drawn = None
        return super().forward(images, targets)

    def torch_choice(self, k: list[int]) -> int:
        """The short side of this batch, drawn from ``k`` for its first image."""
        drawn = super().torch_choice(k)
        if self._drawn is None:
            self._drawn = drawn
        return self._drawn

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Resize ``image`` and the boxes of its target; drop the boxes that lost their width or height."""
        image, target = super().resize(image, target)
        if target is not None:
            boxes = target["boxes"]
            keep = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
            if not keep.all():
                target = {k: v[keep] if getattr(v, "shape", ())[:1] == keep.shape else v for k, v in target.items()}
        return image, target

    def batch_images(self, images: list[Tensor], size_divisible: int = 32) -> Tensor:
        """Pad ``images`` at the right and bottom to one tensor [B, 3, H, W], H and W multiples of 32."""
        batch = super().batch_images(images, size_divisible)
        return batch.contiguous(memory_format=torch.channels_last) if self.channels_last else batch

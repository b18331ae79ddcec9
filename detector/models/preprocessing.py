"""Preprocessing inside the network: images to one batch, and detections back to the images' coordinates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.jit import is_tracing as tracing
from torch.nn.functional import interpolate
from torch.onnx.operators import shape_as_tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes


class DetectionTransform(GeneralizedRCNNTransform):
    """torchvision's normalisation, resizing and batching, with four differences.

    - Where ``min_size`` has several values, one is drawn for each batch, not for each image, so that a batch needs
      little padding. PyTorch's generator is advanced as in torchvision.
    - The batch has the memory format of the network.
    - A box that has no area after resizing is dropped; torchvision stops training with an assertion.
    - A long, thin image keeps at least one pixel of its short side; torchvision fails where the rounded side is 0.
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
        before = image.shape[-2:]
        short = self.torch_choice(self.min_size) if self.training else self.min_size[-1]
        resized: Any = traced_size if tracing() else resized_size
        size = resized(image, short, self.max_size)
        image = interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]
        if target is not None:
            boxes = resize_boxes(target["boxes"], before, image.shape[-2:])
            keep = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
            target = {**target, "boxes": boxes}
            if not keep.all():
                target = {k: v[keep] if getattr(v, "shape", ())[:1] == keep.shape else v for k, v in target.items()}
        return image, target

    def batch_images(self, images: list[Tensor], size_divisible: int = 32) -> Tensor:
        """Pad ``images`` at the right and bottom to one tensor [B, 3, H, W], H and W multiples of 32."""
        batch = super().batch_images(images, size_divisible)
        return batch.contiguous(memory_format=torch.channels_last) if self.channels_last else batch


def resized_size(image: Tensor, short: int, limit: int) -> list[int]:
    """Height and width of ``image`` [3, H, W] when its short side becomes ``short`` pixels, or its long side ``limit``.

    The smaller of the two, rounded down as in torchvision, but at least one pixel.
    """
    shape = image.shape[-2:]
    scale = min(short / min(shape), limit / max(shape))
    return [max(1, int(side * scale)) for side in shape]


def traced_size(image: Tensor, short: int, limit: int) -> list[Tensor]:
    """:func:`resized_size` of ``image`` [3, H, W] as the graph of a trace computes it, for images of any size.

    In float64, as Python does: in float32, 3000 * (96 / 3000) is less than 96, and rounded down to 95.
    """
    shape = shape_as_tensor(image)[-2:].double()
    sides = torch.tensor([short, limit], dtype=torch.float64)
    scale = (
        sides / torch.stack([shape.min(), shape.max()])
    ).min()  # the exporter makes numbers without an axis float32
    size = (shape * scale).floor().clamp(min=1).to(torch.int64)
    return [size[0], size[1]]

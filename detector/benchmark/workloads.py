"""Boxes and feature maps as a detector has them, the calls that are timed, and the bytes they have to move."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor

import roi_ops
from detector.measure import Call

STRIDES = (4, 8, 16, 32)
SCALES = [1 / stride for stride in STRIDES]


@dataclass(frozen=True)
class Scene:
    """A batch of images of one size (height, width)."""

    size: tuple[int, int] = (800, 1216)
    images: int = 2
    device: torch.device | str = "cpu"

    def proposals(self, count: int, seed: int = 0) -> list[Tensor]:
        """A mix of proposals: sides log-uniform in 16..512 pixels, aspect 1/2..2, inside the image."""
        generator = torch.Generator().manual_seed(seed)
        side = 16 * 32 ** torch.rand(count, generator=generator)
        aspect = 2 ** (torch.rand(count, generator=generator) * 2 - 1)
        size = torch.stack([side * aspect.sqrt(), side / aspect.sqrt()], 1)
        limit = torch.tensor([self.size[1], self.size[0]], dtype=torch.float32)
        size = torch.minimum(size, limit)
        low = torch.rand(count, 2, generator=generator) * (limit - size)
        return list(torch.cat([low, low + size], 1).to(self.device).chunk(self.images))

    def crowded(self, count: int, objects: int = 6, seed: int = 0) -> list[Tensor]:
        """What a detector in training pools: three quarters of the boxes of each image around ``objects`` of it, moved
        by up to 15 % of their sides and scaled by up to 20 %; the others as in :meth:`proposals`; ``count`` in all."""
        generator = torch.Generator().manual_seed(seed)
        limit = torch.tensor([self.size[1], self.size[0]] * 2, dtype=torch.float32)
        found = []
        for i, spread in enumerate(self.proposals(count, seed)):
            near = len(spread) * 3 // 4
            alone = Scene(self.size, 1).proposals(objects, seed + i + 1)[0]
            chosen = alone[torch.randint(len(alone), (near,), generator=generator)]
            center, size = (chosen[:, :2] + chosen[:, 2:]) / 2, chosen[:, 2:] - chosen[:, :2]
            center += size * (torch.rand(near, 2, generator=generator) - 0.5) * 0.3
            size = size * (0.8 + 0.4 * torch.rand(near, 2, generator=generator))
            boxes = torch.cat([center - size / 2, center + size / 2], 1).clamp(min=0).minimum(limit)
            found.append(torch.cat([boxes.to(self.device), spread[near:]]))
        return found

    def pyramid(
        self, channels: int = 256, channels_last: bool = True, dtype: torch.dtype = torch.float32
    ) -> dict[str, Tensor]:
        """Four random maps of each image, strides 4 to 32, that want gradients."""
        return {str(i): self._map(channels, stride, channels_last, dtype) for i, stride in enumerate(STRIDES)}

    def single(self, channels: int, stride: int) -> dict[str, Tensor]:
        """One random channels_last map of each image."""
        return {"0": self._map(channels, stride, True, torch.float32)}

    def _map(self, channels: int, stride: int, channels_last: bool, dtype: torch.dtype) -> Tensor:
        f = torch.randn(self.images, channels, self.size[0] // stride, self.size[1] // stride, device=self.device)
        f = f.to(dtype, memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        return f.requires_grad_()

    def forward(self, pooler: torchvision.ops.MultiScaleRoIAlign, maps: dict[str, Tensor], boxes: list[Tensor]) -> Call:
        """The forward pass alone."""
        maps = {name: f.detach() for name, f in maps.items()}
        return lambda: pooler(maps, boxes, [self.size] * self.images)

    def backward(
        self, pooler: torchvision.ops.MultiScaleRoIAlign, maps: dict[str, Tensor], boxes: list[Tensor]
    ) -> Call:
        """The gradient of the features alone; the incoming gradient is contiguous, as a box head's is."""
        out = pooler(maps, boxes, [self.size] * self.images)
        grad = torch.randn(out.shape, device=out.device).to(out.dtype)
        return lambda: torch.autograd.grad(out, list(maps.values()), grad, retain_graph=True)

    def both(self, pooler: torchvision.ops.MultiScaleRoIAlign, maps: dict[str, Tensor], boxes: list[Tensor]) -> Call:
        """Forward and gradient of the features."""
        first = next(iter(maps.values()))
        shape = (sum(len(b) for b in boxes), first.shape[1], *pooler.output_size)
        grad = torch.randn(shape, device=first.device).to(first.dtype)
        return lambda: torch.autograd.grad(pooler(maps, boxes, [self.size] * self.images), list(maps.values()), grad)

    def floor(
        self,
        maps: dict[str, Tensor],
        boxes: list[Tensor],
        bandwidth: float,
        *,
        forward: bool = True,
        backward: bool = False,
    ) -> float:
        """Milliseconds at ``bandwidth`` to read every touched pixel once and write the output (``forward``), and to
        read the gradient of the output and write that of the features (``backward``)."""
        first = next(iter(maps.values()))
        output = sum(len(b) for b in boxes) * 49
        pixels = 0
        if forward:
            pixels += output + self._touched(maps, boxes)
        if backward:
            pixels += output + sum(f[:, 0].numel() for f in maps.values())
        return pixels * first.shape[1] * first.element_size() / bandwidth * 1e3

    def _touched(self, maps: dict[str, Tensor], boxes: list[Tensor]) -> int:
        shadows = {
            name: torch.ones(f.shape[0], 1, *f.shape[2:], device=f.device, requires_grad=True)
            for name, f in maps.items()
        }
        pooler = roi_ops.MultiScaleRoIAlign(list(maps), 7, 2)
        pooled = pooler(shadows, boxes, [self.size] * self.images)
        touched = torch.autograd.grad(pooled.sum(), list(shadows.values()))
        return sum(int((t != 0).sum()) for t in touched)


def with_indices(boxes: list[Tensor]) -> Tensor:
    """Lists of boxes by image as Tensor[K, 5]."""
    return torch.cat([torch.cat([b.new_full((len(b), 1), i), b], 1) for i, b in enumerate(boxes)])


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Autocast to ``dtype``; nothing for float32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)

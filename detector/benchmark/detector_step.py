"""A training step of the detector with our pooling and with torchvision's, everything else being equal."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detector.benchmark.workloads import Scene, autocast
from detector.config.defaults import default
from detector.config.schema import ModelConfig, RoiConfig
from detector.measure import Call
from detector.models.faster_rcnn import build_model

KINDS = ("align", "torchvision_align")  # values of roi=: ours, the peer's
PEER = "roi=torchvision_align"


@dataclass(frozen=True)
class DetectorStep:
    """What is trained on what.

    Attributes:
        model: its configuration.
        side: of the square images, pixels.
        batch: images per step.
        device: where.
        dtype: of autocast; float32: none.
    """

    model: ModelConfig
    side: int
    batch: int
    device: torch.device
    dtype: torch.dtype = torch.float32

    def calls(self) -> list[Call]:
        """Losses and their gradients, for each of :data:`KINDS`: same weights, images, boxes and random numbers."""
        images = [torch.rand(3, self.side, self.side, device=self.device) for _ in range(self.batch)]
        return [self._call(kind, images, self._targets()) for kind in KINDS]

    def _call(self, kind: str, images: list[Tensor], targets: list[dict[str, Tensor]]) -> Call:
        torch.manual_seed(0)
        model: nn.Module = build_model(self.model, default(RoiConfig, kind=kind), num_classes=2)
        model.to(self.device).to(memory_format=torch.channels_last)

        def step() -> None:
            torch.manual_seed(1)
            with autocast(self.device, self.dtype):
                losses = model(images, targets)
            sum(losses.values()).backward()
            model.zero_grad()

        return step

    def _targets(self) -> list[dict[str, Tensor]]:
        scene = Scene((self.side, self.side), self.batch, self.device)
        grown = torch.tensor([0.0, 0, 4, 4], device=self.device)
        ones = torch.ones(8, dtype=torch.int64, device=self.device)
        return [{"boxes": boxes + grown, "labels": ones} for boxes in scene.proposals(8 * self.batch)]

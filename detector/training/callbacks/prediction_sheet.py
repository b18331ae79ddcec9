"""A picture of validation images with their true and their predicted boxes, drawn again at each evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from detector.data.coco import Target
from detector.evaluation.prediction_sheet import draw_prediction_sheet
from detector.training.batches import images_of

Sample = tuple[Tensor, Target, dict[str, Tensor]]  # image, target, output, on the CPU


class PredictionSheet(pl.Callback):
    """Draws images from all over the validation set, those of process 0 where there are several.

    For any module whose ``validation_step`` returns a dict with ``detections``: those of its batch, as torchvision's
    detectors return them.

    Args:
        path: the picture. ``{step}`` in it becomes the number of optimiser steps: a picture for each evaluation.
        images: number of images.
        class_names: names of the labels 1..K; None: the module's attribute ``class_names``.
    """

    def __init__(self, path: str | Path, images: int = 8, class_names: Sequence[str] | None = None):
        self.path = str(path)
        self.images = images
        self.class_names = class_names
        self._samples: list[Sample] = []
        self._batches: dict[int, int] = {}  # number of the batch -> how many of its images are drawn

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Choose the batches."""
        batches = sum(trainer.num_val_batches)
        self._samples, self._batches = [], {}
        for n in range(self.images):
            chosen = n if batches == float("inf") else int(n * batches / self.images)
            self._batches[chosen] = self._batches.get(chosen, 0) + 1

    def on_validation_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Keep images of a chosen batch.

        Raises:
            TypeError: the module's ``validation_step`` does not return this.
        """
        count = self._batches.get(batch_idx, 0) if trainer.is_global_zero and not trainer.sanity_checking else 0
        if not count:
            return
        if not isinstance(outputs, dict) or "detections" not in outputs:
            raise TypeError("PredictionSheet: validation_step has to return a dict with `detections`, one per image")
        for image, target, output in list(zip(images_of(batch), batch[1], outputs["detections"], strict=True))[:count]:
            shown, found = ({k: v.cpu() for k, v in p.items() if isinstance(v, Tensor)} for p in (target, output))
            self._samples.append((image.cpu(), shown, found))

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Draw."""
        samples, self._samples = self._samples, []
        if not samples:
            return
        names = self.class_names or getattr(module, "class_names", None)
        if names is None:
            most = max([int(part["labels"].max()) for s in samples for part in s[1:] if len(part["labels"])], default=1)
            names = [str(label) for label in range(1, most + 1)]
        draw_prediction_sheet(samples, list(names), self.path.replace("{step}", str(trainer.global_step)))

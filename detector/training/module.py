"""The detector as a LightningModule: losses in training, detections and COCO numbers in validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from detector.config.schema import Config
from detector.data.loader import Batch
from detector.evaluation.detections import Detections
from detector.evaluation.ground_truth import GroundTruth
from detector.evaluation.scoring import CocoResult, evaluate
from detector.models.checkpoint import hyper_parameters
from detector.models.faster_rcnn import build_model, check_eval_mode
from detector.training.optimiser import build_optimizer, build_scheduler, images_per_step, scaled_lr


class DetectionModule(pl.LightningModule):
    """A Faster R-CNN with the names of its classes.

    Args:
        config: the whole configuration of the run; ``model``, ``roi``, ``optim``, ``trainer`` and ``seed`` are used.
        class_names: ``class_names[k]`` is the name of label k + 1; label 0 is the background.
        category_ids: their category ids in the annotation file.
        pretrained: load ``config.model.weights``; False where a checkpoint's weights follow.

    Attributes:
        model: torchvision's ``FasterRCNN``.
        losses: those of the last training batch by name, detached scalars.
        result: the numbers of the last validation, on every process; None before the first.
        detections: the detections of the last validation, on rank 0 only.
    """

    def __init__(
        self, config: Config, class_names: Sequence[str], category_ids: Sequence[int], pretrained: bool = True
    ):
        super().__init__()
        self.config = config
        self.class_names = list(class_names)
        self.category_ids = list(category_ids)
        model = config.model if pretrained else replace(config.model, weights="none")
        self.model = build_model(model, config.roi, num_classes=len(self.class_names) + 1)
        self.losses: dict[str, Tensor] = {}
        self.result: CocoResult | None = None
        self.detections: Detections | None = None
        self._parts: list[Detections] = []
        self._truth: GroundTruth | None = None

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """The detections of ``images`` (float32 [3, H, W], 0..1, any sizes). The module must be in eval mode.

        Returns:
            One dict per image: ``boxes`` float32 [N, 4] xyxy in its pixels, ``labels`` int64 [N] in 1..K, ``scores``
            float32 [N], highest first.

        Raises:
            RuntimeError: the module is in training mode.
        """
        check_eval_mode(self)
        return self.model(images)

    # ------------------------------------------------------------------------------------------ training
    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The losses of a batch; ``loss`` is their sum."""
        # Proposals and anchors are sampled at random. Seeded by the batch's number the draws are the same in a
        # resumed run, and in runs that differ in the RoI operator.
        torch.manual_seed(batch_seed(self.config.seed, self.trainer.fit_loop.total_batch_idx, self.global_rank))
        losses = self.model(*batch)
        self.losses = {name: loss.detach() for name, loss in losses.items()}
        return {"loss": sum(losses.values()), **self.losses}

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Optimiser and per-step schedule of the configuration."""
        fused = self.config.trainer.precision != "16-mixed"  # Lightning's scaler of float16 wants a plain one
        config = replace(self.config.optim, lr=scaled_lr(self.config.optim, images_per_step(self.config)))
        optimizer = build_optimizer(self.model, config, fused)
        scheduler = build_scheduler(optimizer, config, self.config.trainer.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # ---------------------------------------------------------------------------------------- validation
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the detections of a batch."""
        images, targets = batch
        ids = [int(target["image_id"]) for target in targets]
        self._parts.append(Detections.from_model(self.model(images), ids, self.category_ids))

    def on_validation_epoch_start(self) -> None:
        """Give all processes the batch norm statistics of rank 0, which are those in the checkpoints."""
        if self.trainer.world_size > 1:
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, 0)

    def on_validation_epoch_end(self) -> None:
        """Score the detections of all processes on rank 0; all processes get the numbers."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        shards = self._gather(Detections.empty() if data.val_padding else Detections.concat(self._parts))
        self._parts = []
        result = None
        if self.trainer.is_global_zero:
            self.detections = Detections.concat(shards)
            result = evaluate(self._ground_truth(), self.detections, data.val_image_ids)
        self.result = self.trainer.strategy.broadcast(result)

    def on_fit_start(self) -> None:
        """Read the ground truth: better to refuse it now than after the training."""
        if self.trainer.is_global_zero:
            self._ground_truth()

    def _ground_truth(self) -> GroundTruth:
        if self._truth is None:
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            self._truth = GroundTruth.of(data.val_split)
        return self._truth

    def _gather(self, own: Detections) -> list[Detections]:
        """The detections of every process, on rank 0."""
        if self.trainer.world_size == 1:
            return [own]
        shards: list[Any] | None = [None] * self.trainer.world_size if self.trainer.is_global_zero else None
        torch.distributed.gather_object(own, shards)
        return shards or []

    # --------------------------------------------------------------------------------------- checkpoints
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what :func:`detector.load` needs."""
        checkpoint["hyper_parameters"] = hyper_parameters(self.config, self.class_names, self.category_ids)


def batch_seed(seed: int, batch: int, rank: int) -> int:
    """A 64-bit seed for the random draws of ``rank`` at training batch ``batch`` of a run."""
    low, high = np.random.SeedSequence([seed, batch, rank]).generate_state(2)
    return int(low) | int(high) << 32

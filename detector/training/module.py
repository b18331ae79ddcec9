"""The detector as a LightningModule: losses in training; detections, losses and COCO numbers in validation."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from detector.config.defaults import parse_partial
from detector.config.schema import Config
from detector.config.stored import from_file
from detector.data.coco import Target
from detector.data.loader import Batch, StepLoader
from detector.data.splits import Split
from detector.evaluation.detections import Detections
from detector.evaluation.ground_truth import GroundTruth
from detector.evaluation.scoring import CocoResult, evaluate
from detector.models.checkpoint import check_model_trust, hyper_parameters, stored_config
from detector.models.faster_rcnn import check_eval_mode, detect_with_losses
from detector.models.initial.build import build_initialised
from detector.models.seeding import seed_of, seeded
from detector.training.batches import check_one_loader, checked, images_of, without_crowds
from detector.training.length import total_steps
from detector.training.optimiser import (
    base_lr,
    build_optimizer,
    build_scheduler,
    images_of_a_step,
    scaled_lr,
    warmup_steps,
    with_lr,
)
from detector.training.validation import BatchOutcome, ImageIds, gather, mean_losses, true_boxes

NOTHING: dict[str, Any] = {"weights": "none", "class_map": None, "keep_classes": False}  # keys of no initial weights


class DetectionModule(pl.LightningModule):
    """A Faster R-CNN with the names of its classes, for any Trainer and any loader.

    Batches are ``(images, targets)`` as torchvision's detectors take them, with labels 1..K. It logs ``train/loss`` and
    the four ``train/loss_*``; for validation ``val/AP``, ``val/AP50`` and the others of COCO's twelve numbers (NaN
    where there is no ground truth), ``val/loss`` and ``val/loss_*``; and the same as ``test/`` for tests. What belongs
    to the Trainer is left to it: length, precision, accumulation, clipping. Training, validation and test take one
    loader each, prediction several.

    Args:
        config: the whole configuration of a run, or a nested dict of some of its keys; ``model``, ``roi``, ``optim``,
            ``seed`` and ``trainer.val_loss`` are used; for ``annotations`` that are a path also ``data.on_invalid`` and
            ``data.drop_categories``.
        class_names: ``class_names[k]`` is the name of label k + 1; label 0 is the background.
        category_ids: their category ids in the annotation file; None: 1..K.
        pretrained: load ``config.model.weights``; False where a checkpoint's weights follow.
        annotations: the COCO file, or its content, that detections are scored against, or a split, whose data set says
            what is left out of its file; it says which boxes are crowds and what the area of an object is. None: the
            targets that the loader gives.
        trust: where ``config`` is that of a file, the modules whose classes it may name, as in :func:`detector.load`.
            None: it is your own.

    Attributes:
        model: torchvision's ``FasterRCNN``.
        class_names, category_ids: of its labels 1..K; with ``model.keep_classes`` those of the detector that the
            training starts from follow those that were given.
        start: lines on what the initial weights are, and which classes were carried over.
        class_rows: where the rows of the classes come from; None if the start is no trained detector.
        lr: peak learning rate; None: ``optim.lr``, or that of a node in ``optim.name``, scaled to the
            images per step if ``optim.base_batch`` says so.
        losses: those of the last training batch by name, detached scalars.
        result: the numbers of the last evaluation, on every process; None before the first.
        eval_losses: its mean losses by name, ``loss`` being their sum; empty without ``trainer.val_loss``.
        detections: its detections, on rank 0 only.
    """

    def __init__(
        self,
        config: Config | Mapping[str, Any],
        class_names: Sequence[str],
        category_ids: Sequence[int] | None = None,
        pretrained: bool = True,
        annotations: str | Path | Split | GroundTruth | None = None,
        trust: str | None = None,
    ):
        super().__init__()
        if not isinstance(config, Config):
            config = parse_partial(dict(config), Config) if trust is None else stored_config(config)
        self.config: Config = config if trust is None else from_file(config, trust)
        if trust is not None:
            check_model_trust(self.config, trust)
        ids = list(range(1, len(class_names) + 1) if category_ids is None else category_ids)
        # A checkpoint brings its weights, and its classes; the file of the initial weights may be gone.
        model = self.config.model if pretrained else replace(self.config.model, **NOTHING)
        built = build_initialised(replace(self.config, model=model), class_names, ids)
        self.model, self.class_names, self.category_ids = built.model, built.class_names, built.category_ids
        self.start, self.class_rows = built.said, built.rows
        self.annotations = annotations
        # A module that a checkpoint is loaded into must not look for the file of the initial weights.
        facts = hyper_parameters(config, self.class_names, self.category_ids)
        self.save_hyperparameters({**facts, "pretrained": False})
        self.lr: float | None = None
        self.losses: dict[str, Tensor] = {}
        self.result: CocoResult | None = None
        self.eval_losses: dict[str, float] = {}
        self.detections: Detections | None = None
        self._outcomes: list[BatchOutcome] = []
        self._truth: GroundTruth | None = None
        self._truth_of: str | Path | Split = ""

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

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: Any, map_location: Any = None, *, weights_only: bool = True, trust: str = "", **more: Any
    ) -> DetectionModule:
        """Lightning's, which runs no code of the file unless it is told to.

        Args:
            checkpoint_path: a file, an open file, or a URL.
            map_location: where the weights are put, as for ``torch.load``.
            weights_only: False: unpickle whatever the file holds, which may run any code.
            trust: the modules whose classes the checkpoint may name, as in :func:`detector.load`.
            more: ``strict``, ``hparams_file``, and arguments that replace those of the file.

        Raises:
            CheckpointError: the network needs a class that is not allowed.
            WeightsError: the configuration is not one of this version.
        """
        # Given here, `trust` wins over what the file may say.
        return super().load_from_checkpoint(
            checkpoint_path, map_location, weights_only=weights_only, trust=trust, **more
        )

    # ------------------------------------------------------------------------------------------ training
    def on_train_start(self) -> None:
        """Warn of a training that is over before its learning rate has risen."""
        check_one_loader(self.trainer.train_dataloader, "training")
        warmup, steps = warmup_steps(self.config.optim), total_steps(self.trainer)
        if warmup >= steps:
            warnings.warn(f"optim.warmup_steps={warmup}: the learning rate rises in all {steps} steps", stacklevel=2)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The losses of a batch, crowd regions left out; ``loss`` is their sum.

        Raises:
            DataError: a target is not one that the detector can be trained on.
        """
        # Those of our own loader are as they should be: a look at them would wait for the device.
        images, targets = batch
        if not isinstance(self.trainer.train_dataloader, StepLoader):
            images, targets = images_of(batch), without_crowds(checked(targets, self.class_names))
        # Proposals and anchors are sampled at random. Seeded by the batch's number the draws are the same in a
        # resumed run, and in runs that differ in the RoI operator.
        seed = seed_of(self.config.seed, self.trainer.fit_loop.total_batch_idx, self.global_rank)
        with seeded(seed, self.device):
            losses = self.model(images, targets)
        total, self.losses = sum(losses.values()), {name: loss.detach() for name, loss in losses.items()}
        # In the progress bar it is read after every batch, which waits for the device.
        self.log("train/loss", total, prog_bar=self._shown, batch_size=len(images))
        self.log_dict({f"train/{name}": loss for name, loss in self.losses.items()}, batch_size=len(images))
        return {"loss": total, **self.losses}

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Optimiser and per-step schedule of the configuration, for as many steps as the Trainer does."""
        trainer, optim = self.trainer, self.config.optim
        lr = self.lr
        if lr is None:
            lr = scaled_lr(optim, images_of_a_step(trainer)) if optim.base_batch else base_lr(optim)
        optim = with_lr(optim, lr)
        # Lightning's scaler of float16 wants a plain optimiser.
        fused = getattr(trainer.precision_plugin, "scaler", None) is None
        optimizer = build_optimizer(self.model, optim, fused)
        scheduler = build_scheduler(optimizer, optim, lambda: total_steps(trainer))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # -------------------------------------------------------------------------------------- evaluation
    def validation_step(
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, list[dict[str, Tensor]]]:
        """Keep what is found in a batch; returns ``detections``, those that :meth:`forward` returns."""
        images, targets = images_of(batch), checked(batch[1], self.class_names)
        ids = self._ids.of(targets)
        if self.config.trainer.val_loss:
            # Seeded by its images, a batch is judged by the same anchors and regions in every evaluation.
            found, losses = detect_with_losses(self.model, images, without_crowds(targets), seed_of(*ids))
        else:
            found, losses = self.model(images), {}
        self._outcomes.append(
            BatchOutcome(
                Detections.from_model(found, ids, self.category_ids),
                {name: loss.item() for name, loss in losses.items()},
                **(true_boxes(images, targets, ids) if self.annotations is None else {}),
            )
        )
        return {"detections": found}

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, list[dict[str, Tensor]]]:
        """As in validation."""
        return self.validation_step(batch, batch_idx)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> list[dict[str, Tensor]]:
        """The detections of a batch of images, with or without targets, as :meth:`forward` returns them."""
        return self.model(images_of(batch))

    def on_validation_epoch_start(self) -> None:
        """Give all processes the batch norm statistics of rank 0, which are those in the checkpoints.

        Raises:
            ConfigError: there is more than one loader.
        """
        trainer: Any = self.trainer
        if trainer.testing:
            check_one_loader(trainer.test_dataloaders, "test")
        else:
            check_one_loader(trainer.val_dataloaders, "validation")
        self._outcomes = []
        self._ids = ImageIds(trainer.global_rank, trainer.world_size, needed=self.annotations is not None)
        if trainer.world_size > 1:
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, 0)

    def on_test_epoch_start(self) -> None:
        """As in validation."""
        self.on_validation_epoch_start()

    def on_validation_epoch_end(self) -> None:
        """Score the detections of all processes on rank 0; all processes get the numbers, and log them."""
        outcomes, self._outcomes = gather(self._outcomes, self.trainer), []
        trainer: Any = self.trainer
        scored = trainer.strategy.broadcast(self._score(outcomes) if trainer.is_global_zero else None)
        self.result, self.eval_losses = scored
        stage = "test" if trainer.testing else "val"
        metrics = {name: float("nan") if value is None else value for name, value in scored[0].metrics.items()}
        # All processes have the same numbers, of which the maximum is the number itself, to the bit.
        self.log_dict(
            {f"{stage}/{name}": value for name, value in {**metrics, **self.eval_losses}.items()},
            logger=self._shown, sync_dist=True, reduce_fx="max", batch_size=1,
        )  # fmt: skip

    def on_test_epoch_end(self) -> None:
        """As in validation."""
        self.on_validation_epoch_end()

    def on_fit_start(self) -> None:
        """Read the annotation file: better to refuse it now than after the training."""
        if self.trainer.is_global_zero:
            self._file_truth()

    @property
    def _shown(self) -> bool:
        """Whether Lightning writes and shows the numbers itself; otherwise :class:`Monitor` and others do."""
        trainer: Any = self.trainer
        return trainer.log_every_n_steps > 0

    def _score(self, outcomes: list[BatchOutcome]) -> tuple[CocoResult, dict[str, float]]:
        self.detections = Detections.concat([outcome.detections for outcome in outcomes])
        truth = self._file_truth()
        if truth is not None and self.config.model.keep_classes:  # those that the data have not are not scored
            unknown = set(self.category_ids) - set(truth.category_ids)
            self.detections = self.detections.without(sorted(unknown))
        if truth is None:
            # Of an image that comes twice the first counts, as with the detections.
            targets: dict[int, Target] = {}
            sizes: dict[int, tuple[int, int]] = {}
            for outcome in reversed(outcomes):
                targets.update(outcome.targets)
                sizes.update(outcome.sizes)
            truth = GroundTruth.from_targets(targets, sizes, self.class_names, self.category_ids)
        return evaluate(truth, self.detections, self.detections.images.tolist()), mean_losses(outcomes)

    def _file_truth(self) -> GroundTruth | None:
        source, data = self.annotations, self.config.data
        if isinstance(source, GroundTruth) or source is None:
            return source
        if self._truth is None or self._truth_of != source:
            if isinstance(source, Split):
                self._truth = GroundTruth.of(source)
            else:
                self._truth = GroundTruth(source, data.on_invalid != "error", data.drop_categories)
            self._truth_of = source
        return self._truth

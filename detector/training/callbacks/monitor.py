"""Losses, learning rate, speed and memory of the training: for the progress bar and the loggers."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from detector.measure import resident_mb
from detector.training.batches import size_of


class Monitor(pl.Callback):
    """Measures speed, waiting for data and memory: ``train/images_per_s``, ``train/data_wait``, ``train/memory_gb``.

    Speed is images over the time since the last row, without the time of evaluations and checkpoints. Lightning's
    ``ThroughputMonitor`` does not tell work from waiting for data (``test_waiting_for_data_is_told_from_work``).

    The numbers go into the rows that the Trainer writes. A Trainer with ``log_every_n_steps=0`` writes none: then they
    are written here, with the losses of the last batch of rank 0 and what callbacks before this one have logged by
    ``module.log``, and after an evaluation with its ``val/`` numbers.
    Such a row belongs to the number of optimiser steps that are done, and is there before a checkpoint of that step is;
    Lightning's has the index of the last step, and is written after all callbacks.

    Args:
        log_every: optimiser steps between rows, besides the first and the last step; None: as the Trainer does.
    """

    def __init__(self, log_every: int | None = None):
        self.log_every = log_every or 0
        self.step = 0  # optimiser steps done
        self.row = -1  # step of the newest row
        self.metrics: dict[str, float] = {}  # its losses
        self.images_per_s = 0.0
        self.waiting = 0.0  # share of the time between the last two rows that was spent waiting for data
        self.waited = 0.0  # share of the whole training by this process that was spent waiting for data
        self.gpu_memory = 0.0  # largest memory of tensors so far, in GB; 0 on the CPU
        self._images = 0
        self._lr = 0.0
        self._busy = self._idle = 0.0  # seconds in steps and between steps since the last row
        self._all_busy = self._all_idle = 0.0  # the same since the start
        self._mark: float | None = None  # end of the last step; None: it was followed by something else

    def on_train_start(self, trainer: Any, module: pl.LightningModule) -> None:
        """Start at the step of a resumed run."""
        self.step = trainer.global_step
        self.log_every = self.log_every or trainer.log_every_n_steps or 1

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Note the learning rate of the coming step, and how long its data took."""
        now = time.perf_counter()
        if self._mark is not None:
            self._idle += now - self._mark
        self._mark = now
        self._lr = max(group["lr"] for group in trainer.optimizers[0].param_groups)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch; after every ``log_every`` steps write a row."""
        self._images += size_of(batch) * trainer.world_size
        done = trainer.global_step
        due = done != self.step and (done % self.log_every == 0 or done in (1, trainer.max_steps))
        self.step = done
        if due:
            self.metrics = losses_of(outputs, trainer)
        now = time.perf_counter()
        self._busy += now - (now if self._mark is None else self._mark)
        self._mark = now
        if due:
            self._log_training(trainer, module)

    def _log_training(self, trainer: Any, module: pl.LightningModule) -> None:
        seconds = self._busy + self._idle
        self.images_per_s = self._images / seconds if seconds else 0.0
        self.waiting = self._idle / seconds if seconds else 0.0
        self._all_busy += self._busy
        self._all_idle += self._idle
        self.waited = self._all_idle / (self._all_busy + self._all_idle or 1.0)
        self._images, self._busy, self._idle = 0, 0.0, 0.0
        self.row = self.step
        row = {"train/lr": self._lr, "train/images_per_s": self.images_per_s, "train/data_wait": self.waiting}
        with suppress(OSError):
            row["train/memory_gb"] = resident_mb() / 1e3
        device = trainer.strategy.root_device
        if device.type == "cuda":
            self.gpu_memory = torch.cuda.max_memory_allocated(device) / 1e9
            row["train/gpu_memory_gb"] = self.gpu_memory
        if trainer.log_every_n_steps:
            module.log_dict(row, batch_size=1)
        else:
            logged = {name: float(value) for name, value in trainer._logger_connector.metrics["log"].items()}
            self._write(trainer, {**logged, **{f"train/{name}": v for name, v in self.metrics.items()}, **row})

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Leave the evaluation out of the speed of training."""
        self._mark = None

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Leave the checkpoint out of the speed of training."""
        self._mark = None

    def on_validation_end(self, trainer: Any, module: pl.LightningModule) -> None:
        """Write a row of the validation, without the numbers that are not defined for lack of ground truth."""
        if trainer.log_every_n_steps or trainer.sanity_checking:
            return
        values = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        self._write(trainer, {name: value for name, value in values.items() if not math.isnan(value)})

    @staticmethod
    def _write(trainer: pl.Trainer, row: dict[str, float]) -> None:
        for logger in trainer.loggers if row else []:
            logger.log_metrics(row, step=trainer.global_step)


def losses_of(outputs: Any, trainer: pl.Trainer) -> dict[str, float]:
    """``loss`` and its parts, as far as ``training_step`` has returned them as scalars; this waits for the device."""
    parts = {name: value.item() for name, value in outputs.items() if isinstance(value, Tensor) and value.numel() == 1}
    loss = parts.pop("loss", 0.0) * trainer.accumulate_grad_batches  # by which Lightning has divided it
    return {"loss": sum(parts.values()) if parts else loss, **parts}

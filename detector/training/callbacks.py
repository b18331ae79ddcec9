"""What happens around the training steps: logs, checkpoints, early stopping, Ctrl-C."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl

from detector.evaluation.coco import CocoResult
from detector.evaluation.detections import Detections
from detector.evaluation.files import replacing
from detector.training.module import Batch, DetectionModule

LAST, BEST = "last.ckpt", "best.ckpt"


class Monitor(pl.Callback):
    """Keeps the newest losses and speed for the progress bar, and writes rows to the loggers.

    A row belongs to the number of optimiser steps that are done. Speed is images over the time since the last row,
    evaluations and checkpoints apart.

    Args:
        log_every: optimiser steps between rows of training metrics.
    """

    def __init__(self, log_every: int):
        self.log_every = log_every
        self.step = 0  # optimiser steps done
        self.row = -1  # step of the newest row
        self.metrics: dict[str, float] = {}  # its losses
        self.images_per_s = 0.0
        self.waiting = 0.0  # share of the time spent waiting for data
        self._images = 0
        self._lr = 0.0
        self._busy = self._idle = 0.0  # seconds in steps and between steps since the last row
        self._mark: float | None = None  # end of the last step; None: something else came between

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Take up the count of a resumed run."""
        self.step = trainer.global_step

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Note the learning rate of the step to come, and the time waited for its data."""
        now = time.perf_counter()
        if self._mark is not None:
            self._idle += now - self._mark
        self._mark = now
        self._lr = max(group["lr"] for group in trainer.optimizers[0].param_groups)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count the batch; after every ``log_every`` steps write a row."""
        self._images += len(batch[0]) * trainer.world_size
        done = trainer.global_step
        due = done != self.step and (done % self.log_every == 0 or done in (1, trainer.max_steps))
        self.step = done
        if due:
            losses = {name: value.item() for name, value in outputs.items() if name != "loss"}
        now = time.perf_counter()
        self._busy += now - (self._mark or now)
        self._mark = now
        if due:
            self._log_training(trainer, losses)

    def _log_training(self, trainer: pl.Trainer, losses: dict[str, float]) -> None:
        seconds = self._busy + self._idle
        self.images_per_s = self._images / seconds if seconds else 0.0
        self.waiting = self._idle / seconds if seconds else 0.0
        self._images, self._busy, self._idle = 0, 0.0, 0.0
        self.metrics = {"loss": sum(losses.values()), **losses}
        self.row = self.step
        row = {f"train/{name}": value for name, value in self.metrics.items()}
        row.update({"train/lr": self._lr, "train/images_per_s": self.images_per_s, "train/data_wait": self.waiting})
        for logger in trainer.loggers:
            logger.log_metrics(row, step=self.step)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Take evaluation out of the speed of training."""
        self._mark = None

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the writing of checkpoints out of it."""
        self._mark = None

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Write a row of the twelve numbers, those without ground truth left out."""
        assert isinstance(module, DetectionModule)
        if module.result is not None:
            row = {f"val/{name}": value for name, value in module.result.metrics.items() if value is not None}
            for logger in trainer.loggers:
                logger.log_metrics(row, step=trainer.global_step)


class Checkpoints(pl.Callback):
    """Writes ``last.ckpt``, and ``best.ckpt``: the weights with the highest AP so far, the first of equals.

    ``last.ckpt`` is written when a step is done and before its evaluation, so that nothing is lost if the
    evaluation fails. A run that resumes from it first repeats that evaluation.

    Args:
        folder: where they go.
        every: optimiser steps between checkpoints besides those before evaluations; 0: none.
        eval_every: optimiser steps between evaluations; there is always one after the last step.
        patience: evaluations without a better AP after which training ends; 0: never.

    Attributes:
        evaluated_step: optimiser steps done at the last evaluation by this process; -1: none yet.
        best_step: optimiser steps that the weights of ``best.ckpt`` had seen.
        best_result, best_detections: their evaluation, where it was made by this process.
    """

    def __init__(self, folder: Path, every: int, eval_every: int, patience: int = 0):
        self.folder = folder
        self.every = every
        self.eval_every = eval_every
        self.patience = patience
        self.best_ap = -1.0
        self.best_step = 0
        self.worse = 0  # evaluations since the best one
        self.saved_step = -1
        self.evaluated_step = -1
        self.best_result: CocoResult | None = None
        self.best_detections: Detections | None = None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know, as plain values."""
        return {"best_ap": self.best_ap, "best_step": self.best_step, "worse": self.worse}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best AP of the run that is resumed."""
        self.best_ap, self.best_step = state_dict["best_ap"], state_dict["best_step"]
        self.worse = state_dict["worse"]

    def evaluates(self, step: int, max_steps: int) -> bool:
        """Whether an evaluation follows when ``step`` optimiser steps are done."""
        return step >= max_steps or (self.eval_every > 0 and step > 0 and step % self.eval_every == 0)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Repeat the evaluation that the resumed run may not have finished."""
        self.saved_step = trainer.global_step
        if self.evaluates(trainer.global_step, trainer.max_steps):
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.run()
            trainer.training = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Write ``last.ckpt`` where it is due."""
        step = trainer.global_step
        if step == self.saved_step:  # gradients are still being accumulated
            return
        if step >= trainer.max_steps:
            # Lightning evaluates after multiples of its interval; infinity means: after the last batch.
            trainer.val_check_batch = float("inf")
        if self.evaluates(step, trainer.max_steps) or (self.every and step % self.every == 0):
            self.save_last(trainer)

    def save_last(self, trainer: pl.Trainer) -> None:
        """Write ``last.ckpt`` of the step just done. To be called on every process."""
        if self.saved_step == trainer.global_step:
            return
        self.saved_step = trainer.global_step
        if trainer.is_global_zero:
            with replacing(self.folder / LAST) as temporary:
                trainer.save_checkpoint(temporary)
        else:
            trainer.save_checkpoint(self.folder / LAST)  # writes nothing, but takes part

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Compare with the best AP; keep the weights if this is better."""
        assert isinstance(module, DetectionModule)
        if module.result is None:
            return
        self.evaluated_step = trainer.global_step
        ap = module.result.metrics["AP"]
        # Without ground truth there is no AP to compare by: the newest weights count as the best.
        if ap is not None and ap <= self.best_ap:
            self.worse += 1
            trainer.should_stop = trainer.should_stop or (0 < self.patience <= self.worse)
            return
        self.best_ap = self.best_ap if ap is None else ap
        self.best_step = trainer.global_step
        self.worse = 0
        self.best_result, self.best_detections = module.result, module.detections
        if trainer.is_global_zero:
            with replacing(self.folder / BEST) as temporary:
                shutil.copyfile(self.folder / LAST, temporary)


class Interruption(Exception):
    """Ctrl-C was pressed, and the run has stopped between two steps with its checkpoint written."""


class CtrlC(pl.Callback):
    """The first Ctrl-C ends training after the step that runs, with a checkpoint; a second one ends it at once.

    Args:
        checkpoints: writes the checkpoint.
        every: with several processes, optimiser steps after which they agree on whether to stop.
        say: prints a line.
    """

    def __init__(self, checkpoints: Checkpoints, every: int = 1, say: Any = print):
        self.checkpoints = checkpoints
        self.every = every
        self.say = say
        self.requested = False
        self._process = os.getpid()
        self._previous: Any = None

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Take over Ctrl-C; only the main thread may."""
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._handle)

    def on_fit_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Give Ctrl-C back."""
        self._restore()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        """Give Ctrl-C back."""
        self._restore()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Stop here if asked to, and if this is between two optimiser steps."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if self._agreed(trainer):
            self.checkpoints.save_last(trainer)
            raise Interruption

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Leave the evaluation if asked to: its checkpoint is written, and a resumed run repeats it."""
        if self.requested and trainer.world_size == 1:
            raise Interruption

    def _agreed(self, trainer: pl.Trainer) -> bool:
        if trainer.world_size == 1:
            return self.requested
        # Processes get the signal at different steps, but have to stop after the same one.
        if trainer.global_step % self.every:
            return False
        return trainer.strategy.reduce_boolean_decision(self.requested, all=False)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a loader process: the main one decides
            return
        self.requested = True
        self._restore()
        self.say("stopping after this step; press Ctrl-C again to stop at once")

    def _restore(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

"""When ``last.ckpt`` and ``best.ckpt`` are written, and when training ends early."""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn

from detector.exceptions import ConfigError
from detector.files import replacing
from detector.training.distributed import any_rank
from detector.training.result import BEST, LAST


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When a checkpoint is due, besides those of evaluations, and when training ends early.

    Attributes:
        every: optimiser steps between checkpoints; 0: none.
        minutes: a checkpoint is due so long after the one before; 0: never.
        patience: evaluations without a better number after which training ends; 0: it does not end early.
        agree_every: with several processes, optimiser steps after which they agree on whether the time is up.
    """

    every: int = 0
    minutes: float = 0.0
    patience: int = 0
    agree_every: int = 1


class Checkpoints(pl.Callback):
    """Writes ``last.ckpt``, and ``best.ckpt``: the weights with the best number so far, the first of equals.

    ``last.ckpt`` is written before an evaluation, which may fail, and a run that resumes from it begins with that
    evaluation. A run that resumes from such a file of Lightning's ``ModelCheckpoint`` leaves the evaluation out
    (``test_model_checkpoint_leaves_an_evaluation_out``). A file that exists is whole: it is written under another name
    first.

    Args:
        folder: where they go; made if it is not there.
        schedule: of further checkpoints, and of the end.
        monitor: the logged number that is compared. Where it is NaN, the newest weights count as the best.
        mode: ``max`` or ``min``: which number is the best.

    Attributes:
        evaluated_step: optimiser steps done at the last evaluation by this process; -1: none yet.
        best_step: optimiser steps that the weights of ``best.ckpt`` had seen.
        best_result, best_detections: ``result`` and ``detections`` of the module at their evaluation, if this process
            made it and the module has such attributes.
    """

    def __init__(
        self, folder: str | Path, schedule: Schedule | None = None, monitor: str = "val/AP", mode: str = "max"
    ):
        self.folder = Path(folder)
        self.schedule = schedule or Schedule()
        self.monitor = monitor
        self.sign = {"max": 1.0, "min": -1.0}[mode]
        self.best = -math.inf  # the best number, times the sign
        self.best_step = 0
        self.since_best = 0  # evaluations since the best one
        self.evaluation_due = False  # an evaluation follows the step of the newest checkpoint
        self.saved_step = -1
        self.saved_at = 0.0  # time.monotonic()
        self.evaluated_step = -1
        self.best_result: Any = None
        self.best_detections: Any = None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know, as plain values."""
        return {key: getattr(self, key) for key in ("best", "best_step", "since_best", "evaluation_due")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on comparing with the best number of the resumed run."""
        for key, value in state_dict.items():
            setattr(self, key, value)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Repeat the evaluation that the resumed run may not have finished."""
        self.saved_step, self.saved_at = trainer.global_step, time.monotonic()
        progress = trainer.fit_loop.epoch_loop.batch_progress
        if progress.current.ready < trainer.num_training_batches:
            # Of a run that had ended and is made longer: Lightning would wait for ever for the epoch to end.
            progress.is_last_batch = False
        if self.evaluation_due and trainer.global_step:
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.run()
            trainer.training = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write ``last.ckpt`` if it is due."""
        if not step_is_done(trainer, batch_idx):  # gradients that are being added up are in no checkpoint
            return
        step, every = trainer.global_step, self.schedule.every
        if 0 <= trainer.max_steps <= step and trainer.is_last_batch:
            # Lightning evaluates after multiples of its interval; infinity means: after the last batch.
            trainer.val_check_batch = float("inf")
        self.evaluation_due = evaluation_is_due(trainer, batch_idx)
        due = self.evaluation_due or (every > 0 and step % every == 0)
        if not due and self.schedule.minutes:
            late = time.monotonic() - self.saved_at >= 60 * self.schedule.minutes
            due = any_rank(trainer, late, self.schedule.agree_every)
        if due:
            self.save_last(trainer)

    def save_last(self, trainer: pl.Trainer) -> None:
        """Write ``last.ckpt`` of the step just done. To be called on every process."""
        if self.saved_step == trainer.global_step:
            return
        self.saved_step, self.saved_at = trainer.global_step, time.monotonic()
        if trainer.is_global_zero:
            with replacing(self.folder / LAST) as temporary:
                trainer.save_checkpoint(temporary, weights_only=False)
        else:
            trainer.save_checkpoint(self.folder / LAST, weights_only=False)  # writes nothing, but takes part

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Compare with the best evaluation of the training; keep the weights if this is better."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self.compare(trainer, module)

    def compare(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Compare the evaluation just done with the best one. To be called on every process.

        Raises:
            ConfigError: the number is not logged.
        """
        logged = trainer.callback_metrics
        if self.monitor not in logged:
            raise ConfigError(
                f"Checkpoints(monitor={self.monitor!r}): no such number is logged; there are "
                f"{', '.join(sorted(logged)) or 'none'}"
            )
        self.evaluated_step = trainer.global_step
        number = self.sign * float(logged[self.monitor])
        if number <= self.best:
            self.since_best += 1
            if 0 < self.schedule.patience <= self.since_best:
                trainer.should_stop = True
            return
        self.best = self.best if math.isnan(number) else number
        self.best_step = trainer.global_step
        self.since_best = 0
        self.best_result, self.best_detections = (getattr(module, key, None) for key in ("result", "detections"))
        self.save_last(trainer)
        if trainer.is_global_zero:
            with replacing(self.folder / BEST) as temporary:
                shutil.copyfile(self.folder / LAST, temporary)


def step_is_done(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether the batch has ended an optimiser step: no gradients are being added up."""
    return trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches == 0


def evaluation_is_due(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether an evaluation follows the batch just done, by Lightning's rules; those by time it does not foresee."""
    interval, epochs = trainer.val_check_batch, trainer.check_val_every_n_epoch
    if interval is None or (epochs and (trainer.current_epoch + 1) % epochs):
        return False
    if interval == float("inf"):
        return trainer.is_last_batch
    return ((batch_idx if epochs else trainer.fit_loop.total_batch_idx) + 1) % interval == 0

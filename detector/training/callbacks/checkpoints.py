"""When ``last.ckpt`` and ``best.ckpt`` are written, and when training ends early."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from detector.evaluation.detections import Detections
from detector.evaluation.scoring import CocoResult
from detector.files import replacing
from detector.training.distributed import any_rank
from detector.training.module import DetectionModule
from detector.training.result import BEST, LAST


class Checkpoints(pl.Callback):
    """Writes ``last.ckpt``, and ``best.ckpt``: the weights with the highest AP so far, the first of equals.

    ``last.ckpt`` is written before an evaluation, which may fail, and a run that resumes from it begins with that
    evaluation. A run that resumes from such a file of Lightning's ``ModelCheckpoint`` leaves the evaluation out
    (``test_model_checkpoint_leaves_an_evaluation_out``).

    Args:
        folder: where they go.
        every: optimiser steps between checkpoints, besides those of evaluations; 0: none.
        minutes: a checkpoint is due so long after the one before; 0: never.
        patience: evaluations without a better AP after which training ends; 0: it does not end early.
        agree_every: with several processes, optimiser steps after which they agree on whether the time is up.

    Attributes:
        evaluated_step: optimiser steps done at the last evaluation by this process; -1: none yet.
        best_step: optimiser steps that the weights of ``best.ckpt`` had seen.
        best_result, best_detections: their evaluation, if this process made it.
    """

    def __init__(self, folder: Path, every: int = 0, minutes: float = 0.0, patience: int = 0, agree_every: int = 1):
        self.folder = folder
        self.every = every
        self.seconds = 60 * minutes
        self.patience = patience
        self.agree_every = agree_every
        self.best_ap = -1.0
        self.best_step = 0
        self.since_best = 0  # evaluations since the best one
        self.saved_step = -1
        self.saved_at = 0.0  # time.monotonic()
        self.evaluated_step = -1
        self.best_result: CocoResult | None = None
        self.best_detections: Detections | None = None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know, as plain values."""
        return {"best_ap": self.best_ap, "best_step": self.best_step, "since_best": self.since_best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on comparing with the best AP of the resumed run."""
        self.best_ap, self.best_step = state_dict["best_ap"], state_dict["best_step"]
        self.since_best = state_dict["since_best"]

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Repeat the evaluation that the resumed run may not have finished."""
        self.saved_step, self.saved_at = trainer.global_step, time.monotonic()
        if evaluation_is_due(trainer):
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.run()
            trainer.training = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write ``last.ckpt`` if it is due."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches:  # gradients that are being added up are in no checkpoint
            return
        step = trainer.global_step
        due = evaluation_is_due(trainer) or (self.every > 0 and step % self.every == 0)
        if step >= trainer.max_steps:
            # Lightning evaluates after multiples of its interval; infinity means: after the last batch.
            trainer.val_check_batch = float("inf")
        if not due and self.seconds:
            due = any_rank(trainer, time.monotonic() - self.saved_at >= self.seconds, self.agree_every)
        if due:
            self.save_last(trainer)

    def save_last(self, trainer: pl.Trainer) -> None:
        """Write ``last.ckpt`` of the step just done. To be called on every process."""
        if self.saved_step == trainer.global_step:
            return
        self.saved_step, self.saved_at = trainer.global_step, time.monotonic()
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
            self.since_best += 1
            trainer.should_stop = trainer.should_stop or (0 < self.patience <= self.since_best)
            return
        self.best_ap = self.best_ap if ap is None else ap
        self.best_step = trainer.global_step
        self.since_best = 0
        self.best_result, self.best_detections = module.result, module.detections
        if trainer.is_global_zero:
            with replacing(self.folder / BEST) as temporary:
                shutil.copyfile(self.folder / LAST, temporary)


def evaluation_is_due(trainer: pl.Trainer) -> bool:
    """Whether an evaluation follows the optimiser steps done so far."""
    step = trainer.global_step
    batches, interval = step * trainer.accumulate_grad_batches, trainer.val_check_batch
    return 0 <= trainer.max_steps <= step or (step > 0 and interval is not None and batches % interval == 0)

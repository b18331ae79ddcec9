"""Ctrl-C and the signals of schedulers: training ends after the current step, with its checkpoint written."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from contextlib import suppress
from types import FrameType
from typing import Any

import pytorch_lightning as pl

from detector.exceptions import ConfigError
from detector.training.callbacks.checkpoints import Checkpoints, step_is_done
from detector.training.distributed import any_rank
from detector.training.result import LAST

# Ctrl-C; what `kill`, Kubernetes and SLURM at a time limit send; what a SLURM job asks for by --signal=USR1@120.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Interruption(Exception):
    """The run was asked to stop, and has stopped between two steps with its checkpoint written."""


class Interrupt(pl.Callback):
    """The first signal ends training after the current step, with a checkpoint; a second one ends it at once.

    The checkpoint is written by the :class:`Checkpoints` among the callbacks, and ``fit`` ends with
    :class:`Interruption`. To go on, give its ``last.ckpt`` to ``fit`` as ``ckpt_path``.
    On SLURM, SIGUSR1 also puts the job back into the queue; with ``resume=auto`` it goes on there. Lightning's own
    handling writes that checkpoint wherever the signal arrives, also between two batches whose gradients are added up
    (``test_accumulated_gradients_are_finished_first``).

    Args:
        every: with several processes, optimiser steps after which they agree on whether to stop.
        say: prints a line.
    """

    def __init__(self, every: int = 1, say: Any = print):
        self.every = every
        self.say = say
        self.requested = False
        self.requeue = False
        self.checkpoints: Checkpoints | None = None
        self._process = os.getpid()
        self._previous: dict[int, Any] = {}
        self._active = False

    def setup(self, trainer: Any, module: pl.LightningModule, stage: str) -> None:
        """Find what writes the checkpoint.

        Raises:
            ConfigError: nothing does.
        """
        found = [callback for callback in trainer.callbacks if isinstance(callback, Checkpoints)]
        if stage == "fit" and not found:
            raise ConfigError("Interrupt needs Checkpoints among the callbacks: it writes the checkpoint to go on from")
        self.checkpoints = found[0] if found else None

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Take over the signals; only the main thread may."""
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
            self._active = True

    def on_fit_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Give the signals back."""
        self._restore()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self._restore()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop if asked to and if the optimiser step is done."""
        if not step_is_done(trainer, batch_idx):
            return
        if any_rank(trainer, self.requested, self.every):
            assert self.checkpoints is not None
            self.checkpoints.save_last(trainer)
            if self.requeue and trainer.is_global_zero:
                requeue(self.say)
            trainer.strategy.barrier()  # srun may end all processes when the first one is gone: not before the requeue
            raise self._interruption(trainer)

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Leave the evaluation if asked to: its checkpoint is written, and a resumed run repeats it.

        The processes do not wait for each other here: the first one that leaves ends those that the signal has not
        reached. If the job is queued again, rank 0 does that, and the others go on until SLURM ends them.
        """
        if not self.requested or (self.requeue and not trainer.is_global_zero):
            return
        if self.requeue:
            requeue(self.say)
        raise self._interruption(trainer)

    def _interruption(self, trainer: pl.Trainer) -> Interruption:
        path = self.checkpoints.folder / LAST if self.checkpoints else LAST
        return Interruption(f"stopped after step {trainer.global_step}; to go on: ckpt_path={str(path)!r}")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a loader process: the main one decides
            return
        if number in self._previous and not self._active:  # Lightning puts this handler back after an interrupted `fit`
            signal.signal(number, self._previous[number])
            signal.raise_signal(number)
            return
        self.requested = True
        self.requeue = number == signal.SIGUSR1 and "SLURM_JOB_ID" in os.environ
        self._restore()
        how = "press Ctrl-C again" if number == signal.SIGINT else "send the signal again"
        with suppress(RuntimeError):  # "reentrant call": the signal came while something else was being printed
            self.say(f"stopping after this step; {how} to stop at once")

    def _restore(self) -> None:
        if self._active:
            for number, handler in self._previous.items():
                signal.signal(number, handler)
        self._active = False


def requeue(say: Any) -> None:
    """Put the SLURM job that this process belongs to back into the queue."""
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
        say(f"job {job} is queued again" if done.returncode == 0 else f"scontrol requeue {job}: {done.stderr.strip()}")
    except OSError as error:
        say(f"scontrol requeue {job}: {error.strerror}")

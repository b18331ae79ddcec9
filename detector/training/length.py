"""How long a run is: epochs become optimiser steps, and lengths that make no sense are refused."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.data import sized_len
from pytorch_lightning.trainer.connectors.data_connector import _parse_num_batches
from pytorch_lightning.trainer.states import RunningStage

from detector.config.schema import Config
from detector.exceptions import ConfigError
from detector.training.optimiser import images_per_step, warmup_steps
from detector.words import counted


def set_length(config: Config, images_per_epoch: int) -> None:
    """Set ``trainer.max_steps`` and ``trainer.eval_every`` where ``trainer.epochs`` and ``eval_epochs`` stand for them.

    Args:
        config: of the run; changed in place.
        images_per_epoch: training images of one epoch; repeated ones count as often as they come.

    Raises:
        ConfigError: see :func:`check_length`.
    """
    wanted, images = config.trainer, images_per_step(config)
    if wanted.epochs:
        wanted.max_steps = max(1, round(wanted.epochs * images_per_epoch / images))
    if wanted.eval_epochs:
        wanted.eval_every = max(1, round(wanted.eval_epochs * images_per_epoch / images))
    check_length(config)


def check_length(config: Config) -> None:
    """Raise :class:`ConfigError` if the run would be over before its learning rate has risen."""
    warmup, steps = warmup_steps(config.optim), config.trainer.max_steps
    if warmup >= steps:
        epochs = f" ({counted(config.trainer.epochs, 'epoch')} of these data)" if config.trainer.epochs else ""
        raise ConfigError(
            f"optim.warmup_steps={warmup}: the learning rate would still be rising at the end of the run, as "
            f"trainer.max_steps={steps}{epochs}. Give fewer optim.warmup_steps or more trainer.max_steps."
        )


def epochs_of(config: Config, images_per_epoch: int) -> float:
    """How often the run sees each training image, on average."""
    return config.trainer.max_steps * images_per_step(config) / images_per_epoch


def total_steps(trainer: pl.Trainer) -> float:
    """Optimiser steps of a training in any Trainer; infinity if it has no last one.

    Lightning's ``estimated_stepping_batches`` loads the training data. Asked before the checkpoint is read, as in
    ``configure_optimizers``, it would keep them from going on where that was written.
    """
    most = math.inf if trainer.max_steps == -1 else trainer.max_steps
    if trainer.max_epochs in (-1, None):
        return most
    loaded = trainer.train_dataloader is not None
    batches = trainer.num_training_batches if loaded else _batches_per_epoch(trainer)
    if math.isinf(batches):
        return most
    return min(most, math.ceil(batches / trainer.accumulate_grad_batches) * max(trainer.max_epochs, 1))


def _batches_per_epoch(trainer: Any) -> float:
    """``trainer.num_training_batches``, of a loader of its own."""
    stage = RunningStage.TRAINING
    loader = trainer.fit_loop._data_source.dataloader()
    own = trainer._data_connector._prepare_dataloader(loader, shuffle=True, mode=stage)  # with a distributed sampler
    length = sized_len(own)
    return _parse_num_batches(stage, math.inf if length is None else length, trainer.limit_train_batches)

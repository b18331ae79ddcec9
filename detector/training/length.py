"""How long a run is: epochs become optimiser steps, and lengths that make no sense are refused."""

from __future__ import annotations

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

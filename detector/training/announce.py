"""What a run says when it begins and when it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytorch_lightning as pl
import torch
from rich.console import Console

from detector.config import Config
from detector.data.datamodule import DetectionDataModule
from detector.training.folder import Start
from detector.training.module import DetectionModule
from detector.training.optim import images_a_step, scaled_lr

if TYPE_CHECKING:
    from detector.training.run import TrainResult


def announce(
    console: Console,
    config: Config,
    module: DetectionModule,
    data: DetectionDataModule,
    trainer: pl.Trainer,
    start: Start,
) -> None:
    """Print what is about to run."""
    model, wanted = config.model, config.trainer
    parameters = sum(p.numel() for p in module.parameters())
    training = sum(p.numel() for p in module.parameters() if p.requires_grad)
    size = f"{parameters / 1e6:.1f} M parameters" + (
        f", {training / 1e6:.1f} M train" if training != parameters else ""
    )
    device = trainer.strategy.root_device
    place = f"{torch.get_num_threads()} CPU threads" if device.type == "cpu" else torch.cuda.get_device_name(device)
    several = f" x {trainer.world_size}" if trainer.world_size > 1 else ""
    batch, optim = images_a_step(config), config.optim
    rate = f"lr {scaled_lr(optim, batch):.3g}"
    if optim.base_batch:
        rate += f" ({optim.lr:g} for {optim.base_batch} images, scaled to {batch})"
    layout = "channels_last" if model.channels_last else "contiguous"
    say = lambda text: console.print(text, highlight=False)
    say(data.summary())
    say(f"model   {model.name}, roi {config.roi.kind}, weights {model.weights}, {model.norm} norm, {size}, {layout}")
    say(f"on      {place}{several}, precision {wanted.precision}")
    say(f"steps   {start.step} to {wanted.max_steps} of {batch} images, {optim.name}, {rate}")
    say(f"folder  {config.run_dir}")
    if model.norm == "frozen" and model.weights == "none" and start.checkpoint is None:
        say("note    frozen norm with random weights learns badly: use model.norm=batch, or give model.weights")


def finish(console: Console, outcome: TrainResult) -> None:
    """Print the numbers and where everything is."""
    console.print(outcome.result)
    console.print(
        f"best weights after {outcome.best_step} of {outcome.steps} steps, {outcome.seconds:.0f} s\n"
        f"results in {outcome.run_dir}",
        highlight=False,
    )

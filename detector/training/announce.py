"""What a run says when it begins and when it is done."""

from __future__ import annotations

import numpy as np
import pytorch_lightning as pl
import torch
from rich.console import Console

from detector.config.checks import is_target
from detector.config.commands import command
from detector.config.schema import Config, ModelConfig, OptimConfig
from detector.config.targets import word_of
from detector.data.coco import DetectionDataset
from detector.data.datamodule import DetectionDataModule
from detector.data.splits import is_builtin
from detector.inspection.anchor_advice import AnchorStudy
from detector.inspection.anchor_fit import OVERLAP
from detector.models.backbone import anchor_strides
from detector.training.callbacks.skipped_images import SKIPPED
from detector.training.expected_memory import expected_memory
from detector.training.length import epochs_of
from detector.training.module import DetectionModule
from detector.training.optimiser import base_lr, images_per_step, is_sgd, scaled_lr
from detector.training.result import TrainResult
from detector.training.resume import Start
from detector.words import counted

WAITING = 0.1  # a larger share of the time spent waiting for data is worth a remark
SAMPLED = 5000  # training boxes that the anchors are held against


def announce(
    console: Console,
    module: DetectionModule,
    data: DetectionDataModule,
    trainer: pl.Trainer,
    start: Start,
    changes: list[str],
) -> None:
    """Print what is about to run; ``changes`` are those of the data since the checkpoint."""
    config = module.config
    model, wanted = config.model, config.trainer
    memory = expected_memory(module.model, config, data.train_dataset.table.sizes)
    parameters = sum(p.numel() for p in module.parameters())
    training = sum(p.numel() for p in module.parameters() if p.requires_grad)
    size = f"{parameters / 1e6:.1f} M parameters" + (
        f", {training / 1e6:.1f} M train" if training != parameters else ""
    )
    device = trainer.strategy.root_device
    cpu = counted(torch.get_num_threads(), "CPU thread")
    processor = cpu if device.type == "cpu" else torch.cuda.get_device_name(device)
    several = f" x {trainer.world_size}" if trainer.world_size > 1 else ""
    batch, optim = images_per_step(config), config.optim
    layout = "channels_last" if model.channels_last else "contiguous"
    say = lambda text: console.print(text, highlight=False)
    say(data.summary())
    network = f"{model.name} of {word_of(model.backbone)} (stride {', '.join(map(str, anchor_strides(model)))})"
    say(f"model   {network}, roi {word_of(config.roi.kind)}, weights {model.weights}, {model.norm} norm, {size}")
    compiled = "backbone by torch.compile" if config.compile == "backbone" else "not compiled"
    say(f"on      {processor}{several}, precision {wanted.precision}, {layout}, {compiled}")
    say(f"memory  {memory}")
    epochs = epochs_of(config, data.images_per_epoch)
    say(
        f"steps   {start.step} to {wanted.max_steps} of {counted(batch, 'image')} ({counted(epochs, 'epoch')}), "
        f"{word_of(optim.name)}, {rate(optim, batch)}"
    )
    say(f"folder  {config.run_dir}")
    new_run = lambda: notes(config, epochs, data.shared_images) + anchor_notes(config.model, data.train_dataset)
    for number, line in enumerate(module.start):
        say(f"{'' if number else 'start':<7} {line}")
    for note in changes if start.checkpoint else new_run():
        say(f"note    {note}")


def rate(optim: OptimConfig, batch: int) -> str:
    """The learning rate for ``batch`` images per step, and how it follows from the configured one if it is another."""
    key = "optim.name.lr" if is_target(optim.name) and "lr" in optim.name else "optim.lr"
    if optim.base_batch in (0, batch):
        return f"lr {base_lr(optim):g}"
    ratio = f"{batch}/{optim.base_batch}" if is_sgd(optim) else f"sqrt({batch}/{optim.base_batch})"
    return (
        f"lr {scaled_lr(optim, batch):.3g} = {base_lr(optim):g} x {ratio} ({key} is for steps of {optim.base_batch} "
        f"images, these are of {batch})"
    )


def notes(config: Config, epochs: float, shared: int = 0) -> list[str]:
    """Remarks on what is allowed but mostly a mistake, with what to do.

    Args:
        config: of a run that starts anew.
        epochs: its length.
        shared: number of validation images that are training images too.
    """
    model, found = config.model, []
    if shared:
        found.append(
            f"{counted(shared, 'validation image')} {'is a training image' if shared == 1 else 'are training images'} "
            "too: the scores are better than those of new images. "
            f"`{command('inspect_data')} ... fix=OUT.json` leaves them out of training"
        )
    if model.weights == "none":
        if not is_builtin(config.data):
            found.append(
                "the network starts from random weights, which takes many times the steps and the images that "
                "pretrained ones do. model.weights=imagenet downloads those of the network; model.weights=FILE reads "
                "its state dict"
            )
        if model.norm == "frozen":
            found.append("frozen norm with random weights learns badly: use model.norm=batch or group")
        if model.trainable_stages < 5:
            found.append(f"model.trainable_stages={model.trainable_stages} keeps random weights as they are: use 5")
    if epochs < 1:
        found.append(
            f"trainer.max_steps={config.trainer.max_steps} ends before each training image was seen once; "
            "trainer.epochs=12 sets the length in epochs"
        )
    return found


def anchor_notes(model: ModelConfig, data: DetectionDataset) -> list[str]:
    """A remark if fewer than two thirds of the training boxes have an anchor of IoU 0.5, with what reaches more.

    Args:
        model: accepted by :func:`~detector.models.faster_rcnn.check_model`.
        data: the training images; boxes are sampled if there are many.
    """
    table, rows = data.table, np.flatnonzero(data.used)
    rows = np.random.default_rng(0).permutation(rows)[:SAMPLED]
    image = np.searchsorted(table.first, rows, side="right") - 1
    study = AnchorStudy(table.boxes[rows].astype(np.float64), table.sizes[image], model)
    if not len(rows) or study.enough:
        return []
    options = [
        f"; {option.fit.recall(OVERLAP):.0%} have one with `{command('train')} ... {option.arguments}`"
        for option in study.options()[:1]
    ]
    return [f"{study.finding()}{''.join(options)}"]


def finish(console: Console, outcome: TrainResult, waited: float, config: Config, first_step: int) -> None:
    """Print the numbers and where everything is.

    Args:
        console: where to print.
        outcome: of the run.
        waited: share of the training time that this process spent waiting for data.
        config: of the run.
        first_step: at which this process began; more than 0 if it resumed a run.
    """
    say = lambda text: console.print(text, highlight=False)
    console.print(outcome.result)
    since = f" since step {first_step}" if first_step else ""
    say(f"best weights after {outcome.best_step} of {counted(outcome.steps, 'step')}, {outcome.seconds:.0f} s{since}")
    if waited > WAITING:
        say(f"{waited:.0%} of the training time was spent waiting for data: raise data.workers ({config.data.workers})")
    else:
        say(f"{waited:.1%} of the training time was spent waiting for data")
    skipped = outcome.folder / SKIPPED
    if skipped.is_file():
        skipped_images = counted(len(skipped.read_text().splitlines()), "image")
        say(f"{skipped_images} could not be read; others took the place: {skipped}")
    say(f"results in {outcome.folder}")

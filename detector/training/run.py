"""A training run from its configuration to its folder of results."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from rich.console import Console

from detector.config.schema import Config
from detector.data.datamodule import DetectionDataModule
from detector.evaluation.scoring import CocoResult
from detector.exceptions import ConfigError
from detector.models.checkpoint import read_checkpoint
from detector.models.faster_rcnn import check_model
from detector.models.poolers import check_parameters
from detector.training import folder as run_folder
from detector.training.announce import announce, finish
from detector.training.checkpoints import BEST, LAST, Checkpoints
from detector.training.claim import claimed
from detector.training.ema import AveragedWeights
from detector.training.failures import explained
from detector.training.interrupt import Interrupt
from detector.training.length import check_length, settle
from detector.training.loggers import build_loggers
from detector.training.memory import expected_memory
from detector.training.module import DetectionModule
from detector.training.monitor import Monitor
from detector.training.processes import Place, agree, check_same, find_place, joined, launch, must_launch
from detector.training.profile import Profile
from detector.training.progress import ProgressDisplay
from detector.training.report import write_report
from detector.training.skips import SKIPPED, Skips
from detector.words import counted


@dataclass
class TrainResult:
    """What a run leaves behind. On processes other than 0, ``result`` is the same and nothing else is written."""

    run_dir: Path
    result: CocoResult  # evaluation of the best weights
    best_step: int  # optimiser steps that they had seen
    steps: int  # optimiser steps of the run
    best_checkpoint: Path
    last_checkpoint: Path
    seconds: float  # wall-clock time of training with its evaluations, by this process


def train(config: Config) -> TrainResult:
    """Train as ``config`` says, evaluate the best weights, and write everything to ``config.run_dir``.

    The folder holds ``config.yaml``, ``metrics.json``, ``metrics.csv``, ``tensorboard/``, ``checkpoints/best.ckpt`` and
    ``last.ckpt``, ``curves.png``, ``predictions.png`` and ``predictions.json``. With several devices, the processes are
    started here, unless torchrun or SLURM has started them.

    Raises:
        DetectorError: the configuration, the data, the weights or the course of the training are at fault.
        KeyboardInterrupt: Ctrl-C; the message says how to go on.
    """
    accelerator = check_hardware(config)
    check_model(config.model)  # what is wrong with these is said before data are read
    check_parameters(config.roi)
    if not config.trainer.epochs:  # else the data have to be read first
        check_length(config)
    if must_launch(config.trainer):
        return launch(train, config)
    place = find_place(config.trainer)
    with settings(config), explained(config), joined(place, accelerator == "gpu"):
        config.run_dir = agree(config.run_dir, place)  # of processes started from outside each has its own clock
        with claimed(config.run_dir) if place.rank == 0 else nullcontext():
            return _train(config, accelerator, place)


def _train(config: Config, accelerator: str, place: Place) -> TrainResult:
    console = Console(quiet=place.rank > 0, soft_wrap=not Console().is_terminal)
    start = run_folder.find_start(config)
    data = DetectionDataModule(config.data, config.augment, config.seed, config.trainer.limit_eval_images)
    data.prepare_data()
    data.setup()
    settle(config, data.images_per_epoch)
    changes = run_folder.check_data(config, start, data)
    splits = len(data.train_dataset), len(data.val_dataset)
    check_same({"their checkpoint's step": start.step, "their numbers of images": splits}, place)
    pl.seed_everything(config.seed, verbose=False)
    # A resumed run has its weights from the checkpoint; the file of the initial ones may be gone.
    module = DetectionModule(config, data.class_names, data.category_ids, pretrained=start.checkpoint is None)
    memory = expected_memory(module.model, config, data.train_dataset.table.sizes)
    if config.compile == "backbone":
        # In place: names of weights stay. Dynamic: images of many sizes come, and each would be compiled anew.
        module.model.backbone.compile(dynamic=True)
    if place.rank == 0:
        run_folder.take(config, start)
    folder = Path(config.run_dir).expanduser().absolute()

    monitor = Monitor(config.trainer.log_every)
    checkpoints = Checkpoints(folder / "checkpoints", config.trainer)
    display = [ProgressDisplay(console, monitor)] if config.trainer.progress_bar else []
    average = [AveragedWeights(config.optim.ema)] if config.optim.ema else []
    skips = [Skips(data.skipped, folder / SKIPPED, console.print)] if config.data.on_error == "skip" else []
    profile = [Profile(folder, config.trainer.profile_steps, console.print)] if config.trainer.profile_steps else []
    interrupt = Interrupt(checkpoints, config.trainer.log_every, console.print)
    # In this order: a checkpoint holds the average of the step that is just done.
    callbacks = [*profile, monitor, *display, *skips, *average, checkpoints, interrupt]
    loggers = build_loggers(config.logger, folder, start.step)
    trainer = build_trainer(config, accelerator, place, folder, callbacks, loggers)
    announce(console, config, module, data, trainer, start, memory, changes)
    begun = time.monotonic()
    trainer.fit(module, datamodule=data, ckpt_path=start.checkpoint, weights_only=True)
    if checkpoints.evaluated_step != trainer.global_step:
        # The run was resumed after its last step: only the evaluation is missing.
        trainer.validate(module, datamodule=data, verbose=False)
    result, detections = checkpoints.best_result, checkpoints.best_detections
    if result is None:  # the best weights are those of an earlier process
        module.load_state_dict(read_checkpoint(folder / "checkpoints" / BEST).content["state_dict"])
        evaluator = build_trainer(config, accelerator, place, folder, display, [])
        evaluator.validate(module, datamodule=data, verbose=False)
        result, detections = module.result, module.detections
    assert result is not None
    outcome = TrainResult(
        folder,
        result,
        checkpoints.best_step,
        trainer.global_step,
        folder / "checkpoints" / BEST,
        folder / "checkpoints" / LAST,
        time.monotonic() - begun,
    )
    if trainer.is_global_zero:
        assert detections is not None
        write_report(config, outcome, detections, data, console.print)
        finish(console, outcome, monitor.waited, config, start.step)
    return outcome


def check_hardware(config: Config) -> str:
    """``"gpu"`` or ``"cpu"``, whichever the configuration means on this machine.

    Raises:
        ConfigError: there are not as many GPUs, or the CPU cannot do what is asked for.
    """
    wanted, gpus = config.trainer, torch.cuda.device_count() if torch.cuda.is_available() else 0
    accelerator = wanted.accelerator
    if accelerator == "auto":
        accelerator = "gpu" if gpus else "cpu"
    if accelerator == "gpu" and not gpus:
        raise ConfigError("trainer.accelerator=gpu: PyTorch finds no GPU here. Use trainer=cpu, or trainer=auto.")
    if accelerator == "gpu" and wanted.devices > gpus:
        raise ConfigError(f"trainer.devices={wanted.devices}: this machine has {counted(gpus, 'GPU')}")
    if accelerator == "cpu" and wanted.precision == "16-mixed":
        raise ConfigError("trainer.precision=16-mixed: float16 needs a GPU. On the CPU use bf16-mixed, or 32.")
    if accelerator == "cpu" and config.model.norm == "sync" and wanted.devices * wanted.num_nodes > 1:
        raise ConfigError("model.norm=sync: PyTorch synchronises batch norm between GPUs only. Use batch, or group.")
    return accelerator


@contextmanager
def settings(config: Config) -> Iterator[None]:
    """PyTorch's process-wide settings as ``config.trainer`` wants them, and as they were afterwards."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    noisy = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric")]
    levels = [logger.level for logger in noisy]
    try:
        if config.trainer.threads:
            torch.set_num_threads(config.trainer.threads)
        # Filling every new tensor with NaN finds uses of uninitialised memory, and costs time in each step.
        memory.fill_uninitialized_memory = False
        for logger in noisy:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric)\..*")
            warnings.filterwarnings("ignore", message=".*(isinstance\\(treespec|LeafSpec).*")
            yield
    finally:
        for logger, level in zip(noisy, levels, strict=True):
            logger.setLevel(level)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        memory.fill_uninitialized_memory = fill


def build_trainer(
    config: Config, accelerator: str, place: Place, folder: Path, callbacks: list[Any], loggers: list[Logger]
) -> pl.Trainer:
    """Lightning's Trainer; training counts optimiser steps, and its data is one epoch of all of them."""
    wanted = config.trainer
    every = wanted.eval_every or wanted.max_steps
    return pl.Trainer(
        accelerator=accelerator,
        devices=wanted.devices,
        num_nodes=wanted.num_nodes,
        strategy="ddp" if place.world > 1 else "auto",
        plugins=[place.environment],
        precision=wanted.precision,  # type: ignore[arg-type]
        max_steps=wanted.max_steps,
        max_epochs=-1,
        val_check_interval=every * config.optim.accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        accumulate_grad_batches=config.optim.accumulate,
        gradient_clip_val=config.optim.clip_norm or None,
        # Warnings rather than errors for the few CUDA kernels that have no deterministic form.
        detect_anomaly=wanted.detect_anomaly,
        deterministic="warn" if wanted.deterministic else False,
        log_every_n_steps=wanted.log_every,
        use_distributed_sampler=False,  # the data module shares out the images itself
        default_root_dir=folder,
        logger=loggers,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )

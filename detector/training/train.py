"""A training run from its configuration to its folder of results."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path

import pytorch_lightning as pl
from rich.console import Console

from detector.config.schema import Config
from detector.config.targets import check_imports, trust_in
from detector.data.datamodule import DetectionDataModule
from detector.models.checkpoint import read_checkpoint
from detector.models.faster_rcnn import check_model
from detector.models.initial.build import check_initial
from detector.models.poolers import check_parameters
from detector.training.announce import announce, finish
from detector.training.callbacks import (
    AveragedWeights,
    Checkpoints,
    Guard,
    Interrupt,
    Monitor,
    Profile,
    ProgressDisplay,
    Schedule,
    SkippedImages,
)
from detector.training.callbacks.skipped_images import SKIPPED
from detector.training.distributed import ProcessGroup, process_group
from detector.training.failures import blamed, explained
from detector.training.forgetting import Known, before_in_words, known_before, write_forgetting
from detector.training.launch import launch, must_launch
from detector.training.length import check_length, set_length
from detector.training.loggers import build_loggers
from detector.training.module import DetectionModule
from detector.training.optimiser import images_per_step, scaled_lr
from detector.training.result import BEST, TrainResult
from detector.training.resume import check_data, find_start
from detector.training.run_folder import run_folder_lock, write_config
from detector.training.trainer import build_trainer, check_hardware, own_callbacks, settings
from detector.training.write_results import write_results


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
    check_imports(config)
    if not config.trainer.epochs:  # else the length depends on the data
        check_length(config)
    if must_launch(config.trainer):
        return launch(train, config)
    group = process_group(config.trainer)
    with settings(config), explained(config), group.connected(accelerator == "gpu"):
        # Processes that torchrun or SLURM has started have made a name of the time, each by its own clock.
        config.run_dir = group.from_rank_0(config.run_dir)
        with run_folder_lock(config.run_dir) if group.rank == 0 else nullcontext():
            return _train(config, accelerator, group)


def _train(config: Config, accelerator: str, group: ProcessGroup) -> TrainResult:
    console = Console(quiet=group.rank > 0, soft_wrap=not Console().is_terminal)
    start = find_start(config)
    if start.checkpoint is None:
        check_initial(config)
    own = own_callbacks(config.callbacks)
    data = DetectionDataModule(config)
    data.prepare_data()
    data.setup()
    config.data.exif = data.exif  # checkpoints keep it for photographs of which nothing else tells
    set_length(config, data.images_per_epoch)
    changes = check_data(config, start, data)
    splits = len(data.train_dataset), len(data.val_dataset)
    group.check_same({"their checkpoint's step": start.step, "their numbers of images": splits})
    pl.seed_everything(config.seed, verbose=False)
    # A resumed run has its weights from the checkpoint; the file of the initial ones may be gone.
    classes = start.classes or {"class_names": data.class_names, "category_ids": data.category_ids}
    module = DetectionModule(config, **classes, pretrained=start.checkpoint is None, annotations=data.val_split)
    known = Known()
    if config.data.old_val_annotations:
        known = group.by_rank_0(lambda: known_before(config, module.class_rows, start.checkpoint))
    module.start += before_in_words(config, known)
    module.lr = scaled_lr(config.optim, images_per_step(config))
    folder = Path(config.run_dir).expanduser().absolute()
    if group.rank == 0:
        write_config(config, start.checkpoint)
        write_forgetting(known, folder)
    wanted = config.trainer
    monitor = Monitor(wanted.log_every)
    schedule = Schedule(
        every=wanted.checkpoint_every,
        minutes=wanted.checkpoint_minutes,
        patience=wanted.early_stopping,
        agree_every=wanted.log_every,
    )
    checkpoints = Checkpoints(folder / "checkpoints", schedule)
    display: list[pl.Callback] = [ProgressDisplay(console)] if wanted.progress_bar else []
    callbacks = [
        Guard(config.optim.clip_norm),
        *own,
        monitor,  # after these: its rows have what they log
        *display,
        *([SkippedImages(data.skipped, folder / SKIPPED, console.print)] if config.data.on_error == "skip" else []),
        *([AveragedWeights(config.optim.ema)] if config.optim.ema else []),
        checkpoints,  # after these: a checkpoint holds their state after the step just done
        Interrupt(wanted.log_every, console.print),
        *([Profile(folder, wanted.profile_steps, console.print)] if wanted.profile_steps else []),
    ]
    loggers = build_loggers(config.logger, folder, start.step)
    keys = [f"callbacks.{name}" for name, node in config.callbacks.items() if node is not None]
    extra = [f"logger.extra.{name}" for name, node in config.logger.extra.items() if node is not None]
    parts = dict(zip([*keys, *extra], [*own, *loggers[len(loggers) - len(extra) :]], strict=True))
    trainer = build_trainer(config, accelerator, group, folder, callbacks, loggers)
    if group.rank == 0:
        announce(console, module, data, trainer, start, changes)
    if config.compile == "backbone":
        # In place, which keeps the names of weights. Dynamic: each of the many image sizes would be compiled anew.
        module.model.backbone.compile(dynamic=True)
    begun = time.monotonic()
    with blamed(parts), explained(config):
        trainer.fit(module, datamodule=data, ckpt_path=start.checkpoint, weights_only=True)
    if checkpoints.evaluated_step != trainer.global_step:
        # The run was resumed after its last step: only the evaluation is missing.
        trainer.validate(module, datamodule=data, verbose=False)
        checkpoints.compare(trainer, module)
    result, detections = checkpoints.best_result, checkpoints.best_detections
    if result is None:  # an earlier process of this run evaluated the best weights
        module.load_state_dict(read_checkpoint(folder / "checkpoints" / BEST).content["state_dict"])
        build_trainer(config, accelerator, group, folder, display, []).validate(module, datamodule=data, verbose=False)
        result, detections = module.result, module.detections
    assert result is not None
    seconds, trust = time.monotonic() - begun, trust_in(config)
    outcome = TrainResult(folder, result, checkpoints.best_step, trainer.global_step, seconds, trust)
    if trainer.is_global_zero:
        assert detections is not None
        write_results(config, outcome, detections, data, known, console.print)
        finish(console, outcome, monitor.waited, config, start.step)
    return outcome

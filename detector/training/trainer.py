"""Lightning's Trainer and PyTorch's settings as the configuration wants them, on the hardware that is there."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    Checkpoint,
    DeviceStatsMonitor,
    LearningRateMonitor,
    ModelSummary,
    ProgressBar,
    ThroughputMonitor,
)
from pytorch_lightning.loggers import Logger

from detector.config.interruption import signals_restored
from detector.config.schema import Config
from detector.config.targets import build_all
from detector.exceptions import ConfigError
from detector.models.device import choose_accelerator, gpu_count
from detector.training.callbacks.interrupt import SIGNALS
from detector.training.distributed import ProcessGroup
from detector.words import counted


def check_hardware(config: Config) -> str:
    """``"gpu"`` or ``"cpu"``, whichever ``trainer.accelerator`` means on this machine.

    Raises:
        ConfigError: there are not as many GPUs, or the CPU cannot do what is asked for.
    """
    wanted = config.trainer
    no_gpu = "trainer.accelerator=gpu: PyTorch finds no GPU here. Use trainer=cpu, or trainer=auto."
    accelerator = choose_accelerator(wanted.accelerator, no_gpu)
    if accelerator == "gpu" and wanted.devices > gpu_count():
        raise ConfigError(f"trainer.devices={wanted.devices}: this machine has {counted(gpu_count(), 'GPU')}")
    if accelerator == "cpu" and wanted.precision == "16-mixed":
        raise ConfigError("trainer.precision=16-mixed: float16 needs a GPU. On the CPU use bf16-mixed, or 32.")
    if accelerator == "cpu" and config.model.norm == "sync" and wanted.devices * wanted.num_nodes > 1:
        raise ConfigError("model.norm=sync: PyTorch synchronises batch norm between GPUs only. Use batch, or group.")
    return accelerator


@contextmanager
def settings(config: Config) -> Iterator[None]:
    """Inside the block PyTorch's process-wide settings are those of ``config.trainer``, and Lightning is quiet."""
    memory: Any = torch.utils.deterministic
    with ExitStack() as undo:
        undo.callback(torch.set_num_threads, torch.get_num_threads())
        undo.callback(
            torch.use_deterministic_algorithms, torch.are_deterministic_algorithms_enabled(),
            warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
        )  # fmt: skip
        undo.enter_context(signals_restored(SIGNALS))  # Lightning switches Ctrl-C off, and puts back what it found
        undo.callback(setattr, memory, "fill_uninitialized_memory", memory.fill_uninitialized_memory)
        if config.trainer.threads:
            torch.set_num_threads(config.trainer.threads)
        # Deterministic mode fills every new tensor with NaN to find uses of uninitialised memory: it takes time.
        memory.fill_uninitialized_memory = False
        for logger in map(logging.getLogger, ("pytorch_lightning", "lightning.pytorch", "lightning_fabric")):
            undo.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        undo.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric)\..*")
        warnings.filterwarnings("ignore", message=".*(isinstance\\(treespec|LeafSpec).*")
        yield


SILENT = (LearningRateMonitor, DeviceStatsMonitor, ThroughputMonitor)  # without rows of Lightning's they log nothing


def own_callbacks(nodes: Mapping[str, Any]) -> list[pl.Callback]:
    """The user's callbacks.

    Args:
        nodes: by name, each with ``_target_``.

    Raises:
        ConfigError: one cannot be made, is no callback, would log nothing, or has a state that a checkpoint cannot
            hold.
    """
    callbacks = build_all(nodes, "callbacks", returns=pl.Callback)
    for callback in callbacks:
        if isinstance(callback, SILENT):
            raise ConfigError(
                f"callbacks: {type(callback).__qualname__} writes when Lightning does, which in these runs is never. "
                "They log learning rate, speed and memory already, as train/lr, train/images_per_s, train/memory_gb"
            )
        for name, value in callback.state_dict().items():
            content = io.BytesIO()
            try:
                torch.save(value, content)
                content.seek(0)
                torch.load(content, weights_only=True)
            except Exception:  # of pickle, in several kinds
                raise ConfigError(
                    f"callbacks: {type(callback).__qualname__} has {name}={value!r} in its state_dict, which has to "
                    "hold numbers, texts, tensors, lists and dicts only: checkpoints are read without running code"
                ) from None
    return callbacks


def build_trainer(
    config: Config,
    accelerator: str,
    group: ProcessGroup,
    folder: Path,
    callbacks: list[pl.Callback],
    loggers: list[Logger],
) -> pl.Trainer:
    """Lightning's Trainer, for which the whole run is one epoch; its length is in optimiser steps.

    Among ``callbacks``, progress bars, summaries and checkpoints of Lightning's are the user's own.
    """
    wanted = config.trainer
    every = wanted.eval_every or wanted.max_steps
    return pl.Trainer(
        accelerator=accelerator,
        devices=wanted.devices,
        num_nodes=wanted.num_nodes,
        strategy="ddp" if group.world_size > 1 else "auto",
        plugins=[group.environment],
        precision=wanted.precision,  # type: ignore[arg-type]
        max_steps=wanted.max_steps,
        max_epochs=-1,
        val_check_interval=every * config.optim.accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        accumulate_grad_batches=config.optim.accumulate,
        detect_anomaly=wanted.detect_anomaly,
        # Warnings rather than errors for the few CUDA kernels that have no deterministic form.
        deterministic="warn" if wanted.deterministic else False,
        log_every_n_steps=0,  # `Monitor` writes the rows, each before the checkpoint of its step
        use_distributed_sampler=False,  # the data module shares out the images itself
        default_root_dir=folder,
        logger=loggers,
        callbacks=callbacks,
        # Lightning adds one of its own only if there is none.
        enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
        enable_progress_bar=any(isinstance(c, ProgressBar) for c in callbacks),
        enable_model_summary=any(isinstance(c, ModelSummary) for c in callbacks),
    )

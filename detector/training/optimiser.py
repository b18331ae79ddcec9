"""The optimiser, and the learning rate of each optimiser step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from detector.config.checks import is_target
from detector.config.schema import Config, OptimConfig
from detector.config.targets import build, fitting, locate, word_of
from detector.exceptions import ConfigError

NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def build_optimizer(model: nn.Module, config: OptimConfig, fused: bool = True) -> Optimizer:
    """SGD, AdamW or what a node with ``_target_`` makes, over the parameters of ``model`` that train.

    Args:
        model: parameters that do not require a gradient are left out.
        config: the ``optim`` group.
        fused: one kernel updates all parameters: the same values to rounding, in less time. A class of the user's is
            not asked for it.

    Raises:
        ConfigError: the class of a node cannot be used.
    """
    if is_target(config.name):
        return build_given_optimizer(model, config)
    groups = parameter_groups(model, config)
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=fused)
    return torch.optim.AdamW(groups, lr=config.lr, fused=fused)


def build_given_optimizer(model: nn.Module, config: OptimConfig) -> Optimizer:
    """What the node in ``optim.name`` makes of the parameter groups.

    ``lr``, ``weight_decay`` and ``momentum`` are passed if the signature of the class names them; what the node says of
    them replaces the keys of ``optim``.
    """
    node = config.name
    config = replace(config, **{key: node[key] for key in ("lr", "weight_decay") if key in node})
    offers = {key: getattr(config, key) for key in ("lr", "weight_decay", "momentum")}
    groups = parameter_groups(model, config)
    return build(node, "optim.name", groups, returns=Optimizer, **fitting(node, "optim.name", **offers))


def is_sgd(config: OptimConfig) -> bool:
    """Whether the optimiser is SGD, or a class derived from PyTorch's; no Adam then."""
    if not is_target(config.name):
        return config.name == "sgd"
    found = locate(config.name["_target_"], "optim.name")
    return isinstance(found, type) and issubclass(found, torch.optim.SGD)


def base_lr(config: OptimConfig) -> float:
    """``optim.lr``, or the ``lr`` of a node in ``optim.name``, which replaces it."""
    return config.name.get("lr", config.lr) if is_target(config.name) else config.lr


def with_lr(config: OptimConfig, lr: float) -> OptimConfig:
    """``config`` with another :func:`base_lr`."""
    own = is_target(config.name) and "lr" in config.name
    return replace(config, lr=lr, name={**config.name, "lr": lr} if own else config.name)


def scaled_lr(config: OptimConfig, images: int) -> float:
    """The learning rate for steps of ``images`` images: :func:`base_lr`, scaled if ``base_batch`` says so.

    SGD: in proportion to them (Goyal et al., Accurate, Large Minibatch SGD, 2017). Adam: to their square root
    (Malladi et al., On the SDEs and Scaling Rules for Adaptive Gradient Algorithms, 2022).
    """
    if not config.base_batch:
        return base_lr(config)
    ratio = images / config.base_batch
    return base_lr(config) * (ratio if is_sgd(config) else math.sqrt(ratio))


def images_per_step(config: Config) -> int:
    """Images per optimiser step: those of all processes and accumulated batches."""
    processes = config.trainer.devices * config.trainer.num_nodes
    return config.data.batch_size * processes * config.optim.accumulate


def images_of_a_step(trainer: pl.Trainer) -> int:
    """:func:`images_per_step` of any Trainer that is about to fit.

    Raises:
        ConfigError: its loader does not say how many images a batch has.
    """
    # Not `trainer.train_dataloader`: loaded before the checkpoint, it would not go on where that was written.
    loader = trainer.fit_loop._data_source.dataloader()
    size = getattr(loader, "batch_size", None) or getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
    if size is None:
        raise ConfigError(
            "optim.base_batch: the learning rate cannot be scaled, as the loader has no batch_size. Set "
            "optim.base_batch=0, or the attribute `lr` of the module"
        )
    return size * trainer.world_size * trainer.accumulate_grad_batches


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """The parameters that train, in groups of the same weight decay, learning rate and freezing.

    Normalisation parameters and biases have a weight decay of their own. The rate of the backbone's last stage is
    ``backbone_lr`` times ``lr``; the rate of each stage before it is ``stage_decay`` times that of the next one.
    ``group["backbone"]`` says whether the group stays frozen for ``backbone_frozen_steps``.
    """
    groups: dict[tuple[bool, float, bool], dict[str, Any]] = {}
    stages = getattr(getattr(model, "backbone", None), "stages", {})
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            stage = stages.get(f"{path}.{name}".removeprefix("backbone."))
            factor = 1.0 if stage is None else config.backbone_lr * config.stage_decay**stage
            small = isinstance(module, NORMS) or name.endswith("bias")
            backbone = stage is not None and config.backbone_frozen_steps > 0
            group = groups.setdefault((small, factor, backbone), {"params": []})
            group["params"].append(parameter)
            group["weight_decay"] = config.norm_weight_decay if small else config.weight_decay
            group["lr"] = config.lr * factor
            group["backbone"] = backbone
    return [groups[key] for key in sorted(groups, key=lambda key: key[0])]


def build_scheduler(optimizer: Optimizer, config: OptimConfig, total_steps: Callable[[], float]) -> LRScheduler:
    """The schedule of ``config``; to be stepped after every optimiser step.

    Args:
        optimizer: with the peak rates.
        config: the ``optim`` group.
        total_steps: gives the length of the training, infinity included. Our schedules ask after the first step, which
            does not depend on it; a class of the user's may need it at once.
    """
    if is_target(config.schedule):
        return build_given_scheduler(optimizer, config, total_steps)

    def factor(frozen: int) -> Callable[[int], float]:
        return lambda step: 0.0 if step < frozen else lr_factor(step, config, total_steps() if step else 1)

    groups = optimizer.param_groups
    return LambdaLR(optimizer, [factor(config.backbone_frozen_steps if g["backbone"] else 0) for g in groups])


def build_given_scheduler(optimizer: Optimizer, config: OptimConfig, total_steps: Callable[[], float]) -> LRScheduler:
    """What the node in ``optim.schedule`` makes of the optimiser.

    If the signature of the class names ``total_steps`` or ``T_max``, that is the length of the training in steps.

    Raises:
        ConfigError: the class of the node cannot be used, or not for this training.
    """
    node, key = config.schedule, "optim.schedule"
    where = f"{key}: {word_of(node)}"
    if config.backbone_frozen_steps:
        raise ConfigError(
            f"optim.backbone_frozen_steps={config.backbone_frozen_steps}: the backbone is frozen by our schedules, "
            f"and not by {where}; give 0, or one of ours"
        )
    length: dict[str, Any] = {}
    for name in fitting(node, key, total_steps=0, T_max=0):
        if name not in node:
            steps = total_steps()
            if not math.isfinite(steps):
                raise ConfigError(f"{where} wants {name}, and the training has no last step; give it in the node")
            length[name] = int(steps)
    made = build(node, key, optimizer, returns=LRScheduler, **length)
    if isinstance(made, ReduceLROnPlateau):
        raise ConfigError(f"{where} waits for a metric; the schedule has to go on with every step")
    return made


def warmup_steps(config: OptimConfig) -> int:
    """Optimiser steps in which the rate rises; a schedule of the user's has its own."""
    return 0 if is_target(config.schedule) else config.warmup_steps


def lr_factor(step: int, config: OptimConfig, total_steps: float) -> float:
    """The learning rate of optimiser step ``step`` (from 0) relative to ``config.lr``.

    The rate rises from ``warmup_factor`` at step 0 to 1 at step ``warmup_steps``: along a straight line, or along
    half a cosine for ``one_cycle``. After that:

    - ``constant``: stays;
    - ``step``: is multiplied by ``gamma`` from step ``milestone * total_steps`` on, for each milestone;
    - ``cosine`` and ``one_cycle``: falls along half a cosine to ``final_factor`` at the last step.

    ``one_cycle`` is PyTorch's ``OneCycleLR`` with ``warmup_steps`` as its rising phase and the momentum left alone.
    PyTorch's own schedulers keep their length in the checkpoint, so that a run could not be made longer
    (``test_finished_run_is_evaluated_again_and_may_be_made_longer``).
    """
    if step < config.warmup_steps:
        done = step / config.warmup_steps
        if config.schedule == "one_cycle":
            done = 0.5 - 0.5 * math.cos(math.pi * done)
        return config.warmup_factor + (1 - config.warmup_factor) * done
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "step":
        return config.gamma ** sum(step >= milestone * total_steps for milestone in config.milestones)
    falling = max(total_steps - 1 - config.warmup_steps, 1)
    done = min((step - config.warmup_steps) / falling, 1.0)
    return config.final_factor + (1 - config.final_factor) * (0.5 + 0.5 * math.cos(math.pi * done))

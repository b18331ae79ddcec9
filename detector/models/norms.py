"""Kinds of normalisation: the layers of a network in place of its batch norm, and batch norm that stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import FrozenBatchNorm2d

from detector.exceptions import ConfigError


class _ThenParts(nn.Module):
    """Goes on with the layers in a norm layer, which timm keeps there: dropout and activation."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x``, and apply the layers inside."""
        x = super().forward(x)
        for part in self.children():
            x = part(x)
        return x


class FrozenBatchNormAct(_ThenParts, FrozenBatchNorm2d):
    """torchvision's frozen batch norm with dropout and activation inside."""


class SyncBatchNormAct(_ThenParts, nn.SyncBatchNorm):
    """Synchronised batch norm with dropout and activation inside."""


class GroupNormAct(_ThenParts, nn.GroupNorm):
    """Group norm with dropout and activation inside."""


class FrozenBatchNorm1d(FrozenBatchNorm2d):
    """torchvision's frozen batch norm for [N, C] or [N, C, L]."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x``."""
        return super().forward(x[..., None, None] if x.ndim == 2 else x[..., None]).reshape(x.shape)


def norm_layer(kind: str) -> Callable[..., nn.Module]:
    """A constructor ``channels -> module`` for ``frozen``, ``batch``, ``sync`` or ``group``."""
    kinds = {"frozen": FrozenBatchNorm2d, "batch": nn.BatchNorm2d, "sync": nn.SyncBatchNorm, "group": group_norm}
    return kinds[kind]


def groups_of(channels: int, most_groups: int = 32, least_channels: int = 8) -> int:
    """The most groups that divide ``channels``: at most 32, and each of 8 channels or more.

    The usual 32 groups would normalise the narrow layers of MobileNetV2 one channel at a time.
    """
    groups = min(most_groups, max(channels // least_channels, 1))
    while channels % groups:
        groups -= 1
    return groups


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm with :func:`groups_of` ``channels``."""
    return nn.GroupNorm(groups_of(channels), channels)


def replace_batch_norm(module: nn.Module, kind: str) -> nn.Module:
    """``module`` with every batch norm in it, or itself, of another kind; weights and statistics are kept.

    Args:
        module: it is changed.
        kind: ``batch`` (nothing is changed), ``frozen``, ``sync`` or ``group``. One-dimensional batch norm, which a few
            networks have over tokens, only becomes ``frozen``.
    """
    if kind == "batch":
        return module
    if isinstance(module, _BatchNorm):
        return _replaced(module, kind)
    for name, child in module.named_children():
        setattr(module, name, replace_batch_norm(child, kind))
    return module


def set_batch_norm(module: nn.Module, kind: str, given: Mapping[str, float]) -> None:
    """Set numbers of every batch norm in ``module``.

    Args:
        module: it is changed.
        kind: of its norms, as of :func:`replace_batch_norm`.
        given: ``norm_eps``, added to the variances, of frozen batch norm too, and ``norm_momentum``, the share of a
            batch in the running statistics, which frozen batch norm does not change; -1 leaves them as they are.

    Raises:
        ConfigError: a number is another negative one, or the norms are group norm.
    """
    for name, value in given.items():
        if value == -1:
            continue
        if value < 0:
            raise ConfigError(f"model.{name}={value}: give 0 or more, or -1 for that of the network")
        if kind == "group":
            raise ConfigError(f"model.{name}={value}: the network has group norm, not batch norm; give -1")
        kinds = _BatchNorm | FrozenBatchNorm2d if name == "norm_eps" else _BatchNorm
        for norm in module.modules():
            if isinstance(norm, kinds):
                setattr(norm, name.removeprefix("norm_"), value)


def _replaced(norm: _BatchNorm, kind: str) -> nn.Module:
    parts = dict(norm.named_children())
    channels, eps = norm.num_features, norm.eps
    new: Any
    if isinstance(norm, nn.BatchNorm1d):
        if kind != "frozen":
            return norm
        new = FrozenBatchNorm1d(channels, eps)
    elif kind == "frozen":
        new = (FrozenBatchNormAct if parts else FrozenBatchNorm2d)(channels, eps)
    elif kind == "sync":
        new = (SyncBatchNormAct if parts else nn.SyncBatchNorm)(channels, eps, norm.momentum)
    else:
        new = (GroupNormAct if parts else nn.GroupNorm)(groups_of(channels), channels, eps)
    own = new.state_dict()
    with torch.no_grad():
        new.load_state_dict({key: value for key, value in norm.state_dict().items() if key in own}, strict=False)
    for name, part in parts.items():
        new.add_module(name, part)
    return new.to(norm.running_mean.device if norm.running_mean is not None else None)

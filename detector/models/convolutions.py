"""Depthwise separable convolutions in place of full ones."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import nn


def make_separable(module: nn.Module) -> nn.Module:
    """``module`` with every convolution in it that is wider than one cell in two parts (MobileNets, 2017).

    ``depthwise`` filters each channel by itself, ``pointwise`` mixes them: k² + C products an output channel and cell
    instead of k² C. Both get initial weights that keep the variance, whatever those of ``module`` are: two layers drawn
    as small as torchvision's region proposal network draws its one would pass on next to nothing.

    Args:
        module: it is changed. Convolutions in groups stay.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and child.kernel_size != (1, 1) and child.groups == 1:
            setattr(module, name, _separable(child))
        else:
            make_separable(child)
    return module


def _separable(conv: nn.Conv2d) -> nn.Sequential:
    channels = conv.in_channels
    same = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
    keys: dict[str, Any] = {key: getattr(conv, key) for key in same}
    depthwise = nn.Conv2d(channels, channels, groups=channels, bias=False, **keys)
    pointwise = nn.Conv2d(channels, conv.out_channels, 1, bias=conv.bias is not None)
    for layer in (depthwise, pointwise):
        nn.init.kaiming_uniform_(layer.weight, a=1)
    if pointwise.bias is not None:
        nn.init.zeros_(pointwise.bias)
    return nn.Sequential(OrderedDict(depthwise=depthwise, pointwise=pointwise))

"""Networks by name: torchvision's, timm's, and your own."""

from __future__ import annotations

import difflib
from typing import Any

import torchvision
from torch import nn
from torchvision.models import get_model_weights, list_models

from detector.config.checks import is_target
from detector.config.targets import build, word_of
from detector.exceptions import ConfigError
from detector.models.networks import Network
from detector.models.timm_networks import TimmNetwork, timm_of
from detector.models.torchvision_networks import TorchvisionNetwork

KEY = "model.backbone"


def find_network(backbone: Any) -> Network:
    """The network that ``model.backbone`` names, with random weights.

    Args:
        backbone: ``mobilenet_v2``, ``torchvision/NAME``, ``timm/NAME`` or a node with ``_target_``.

    Raises:
        ConfigError: there is no such network, or it cannot be built, or its images cannot have any size.
    """
    if is_target(backbone):
        return Network(f"{KEY}: {word_of(backbone)}", build(backbone, KEY, returns=nn.Module))
    check_network(backbone)
    library, _, network = full_name(backbone).partition("/")
    if library == "timm":
        return TimmNetwork(f"{KEY}={backbone}", network)
    return TorchvisionNetwork(f"{KEY}={backbone}", network)


def full_name(backbone: str) -> str:
    """``torchvision/mobilenet_v2`` for ``mobilenet_v2``; others are full."""
    return backbone if "/" in backbone else f"torchvision/{backbone}"


def check_network(backbone: Any) -> None:
    """Raise :class:`ConfigError` with the nearest names unless its library has the network; nothing is built."""
    if is_target(backbone):
        return
    library, _, network = full_name(backbone).partition("/")
    # A name of timm's may be followed by the tag of its weights, as in resnet50.a1_in1k.
    known = timm_of(f"{KEY}={backbone}").list_models() if library == "timm" else list_models(module=torchvision.models)
    if (network.partition(".")[0] if library == "timm" else network) not in known:
        nearest = difflib.get_close_matches(network, known, n=3)
        hint = f"; did you mean {' or '.join(f'{library}/{near}' for near in nearest)}?" if nearest else ""
        raise ConfigError(f"{KEY}={backbone}: {library} has no such network{hint}")


def published(backbone: Any) -> list[str]:
    """Names of weights to download: torchvision's, as ``ResNet50_Weights.IMAGENET1K_V2``, and ``imagenet``."""
    if is_target(backbone):
        return []
    library, _, network = full_name(backbone).partition("/")
    if library == "timm":  # the name of the network may say which
        return ["imagenet"]
    enum = get_model_weights(network)
    return [*(f"{enum.__name__}.{name}" for name in enum.__members__), "imagenet"]

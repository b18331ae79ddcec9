"""Initial weights of a backbone: none, published ones by name, or a state-dict file."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detector.config.schema import ModelConfig
from detector.config.targets import word_of
from detector.exceptions import WeightsError
from detector.models.catalogue import published
from detector.models.networks import Network
from detector.words import first_line

LISTED = 5  # a message names this many keys of each kind


def load_backbone_weights(network: Network, config: ModelConfig) -> None:
    """Load the weights of ``config`` into a whole network.

    Args:
        network: that of ``config``, with its norm layers as they are to be.
        config: ``weights`` is ``"none"`` (leave it as it is), ``"imagenet"`` (those that the library of the network
            gives it), a name of torchvision's enum with or without the name of the enum, or the path of a state dict of
            the network, with its classifier or without.

    Raises:
        WeightsError: the weights cannot be downloaded, read, or do not fit.
    """
    check_weights(config)
    weights = config.weights
    if weights == "none":
        return
    known = weights in names_of(config)
    state = network.download(weights) if known else read_state_dict(Path(weights).expanduser())
    fit(network, network.of_file(state), weights)


def check_weights(config: ModelConfig) -> None:
    """Refuse what :func:`load_backbone_weights` will not find; nothing is read or downloaded.

    Raises:
        WeightsError: ``weights`` is empty, a name that torchvision does not know, or a file that is not there.
    """
    weights, full = config.weights, published(config.backbone)
    if weights == "none" or weights in names_of(config):
        return
    choices = ", ".join(["a state-dict file", *full, "none"])
    if not weights:
        raise WeightsError(f"model.weights: has to be given: one of {choices}")
    network = f"model.backbone={word_of(config.backbone)}"
    if re.fullmatch(r"\w+_Weights\.\w+", weights):
        raise WeightsError(f"model.weights={weights}: for {network}, torchvision has {', '.join(full[:-1]) or 'none'}")
    path = Path(weights).expanduser()
    if not path.is_file():
        raise WeightsError(f"model.weights={path}: there is no such file. For {network} give one of {choices}.")


def names_of(config: ModelConfig) -> list[str]:
    """What ``weights`` may be that is downloaded: names of torchvision's enum, whole and short, and ``imagenet``."""
    full = published(config.backbone)
    return [*full, *(name.partition(".")[2] for name in full if "." in name)]


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a file that is there, without running code from it.

    Raises:
        WeightsError: the file is damaged, or holds something else than named tensors.
    """
    state = read_tensors(path, f"model.weights={path}")
    if isinstance(state, dict) and "state_dict" in state and "hyper_parameters" in state:
        raise WeightsError(
            f"model.weights={path}: this is the checkpoint of a training run, not a backbone's state dict. "
            "To go on training it use resume=PATH."
        )
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"model.weights={path}: holds {type(state).__name__}, not a dict of named tensors.")
    return state


def read_tensors(path: Path, named: str) -> Any:
    """The content of a file of ``torch.save``, on the CPU, without running code from it.

    Args:
        path: a file that exists.
        named: how messages name it.

    Raises:
        WeightsError: the file is damaged, or holds other things than tensors and plain values.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # PyTorch's message advises to run what is in the file
        reason = "it is no file of torch.save, or holds other things than tensors and plain values"
    except OSError as error:
        reason = first_line(error)
    except Exception as error:  # torch.load raises a different type for each kind of damage, with PyTorch's insides
        reason = f"it is damaged or cut off, or no file of torch.save ({type(error).__name__})"
    raise WeightsError(f"{named}: cannot be read ({path.stat().st_size:,} bytes): {reason}.")


def fit(network: Network, state: Mapping[str, Tensor], source: str) -> None:
    """Copy ``state`` into ``network``; every tensor must be there and have the right shape.

    Raises:
        WeightsError: naming the first missing, unexpected and mismatched keys.
    """
    own = network.weighted.state_dict()
    # Older files lack the counter of batches, and frozen norm has none. No weight depends on it.
    relevant = lambda tensors: {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
    problem = mismatch(relevant(state), relevant(own))
    if not problem:
        network.weighted.load_state_dict({key: value for key, value in state.items() if key in own}, strict=False)
        return
    message = f"model.weights={source}: does not fit {network.name}. {problem}."
    if any("running_mean" in key for key in state) and not any("running_mean" in key for key in own):
        message += " The weights were trained with batch norm: use model.norm=batch, frozen or sync."
    raise WeightsError(message)


def mismatch(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """How the keys and shapes of ``state`` differ from those of ``own``, in words; "" if they do not."""
    missing, unexpected = [key for key in own if key not in state], [key for key in state if key not in own]
    mismatched = [
        f"{key} {list(state[key].shape)} instead of {list(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", mismatched))
    parts = [
        f"{len(keys)} {kind}: {', '.join(keys[:LISTED])}{', ...' if len(keys) > LISTED else ''}"
        for kind, keys in kinds
        if keys
    ]
    return f"Keys {'; '.join(parts)}" if parts else ""

"""Initial weights of the MobileNetV2 backbone: none, torchvision's, or a state-dict file."""

from __future__ import annotations

import http.client
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models import MobileNet_V2_Weights

from detector.exceptions import WeightsError
from detector.words import first_line

ENUM = MobileNet_V2_Weights.__name__
LISTED = 5  # a message names this many keys of each kind


def load_backbone_weights(features: nn.Sequential, weights: str) -> None:
    """Load ``weights`` into ``mobilenet_v2().features``.

    Args:
        features: all 19 blocks of torchvision's MobileNetV2.
        weights: ``"none"`` (leave ``features`` as it is), a name of ``MobileNet_V2_Weights`` with or without
            the name of the enum, or the path of a state dict of ``mobilenet_v2()`` or of its ``features``.

    Raises:
        WeightsError: the weights cannot be downloaded, read, or do not fit.
    """
    check_weights(weights)
    if weights == "none":
        return
    name = weights.removeprefix(f"{ENUM}.")
    known = name in MobileNet_V2_Weights.__members__
    state = _download(name) if known else read_state_dict(Path(weights).expanduser())
    fit(features, features_only(state), weights)


def check_weights(weights: str) -> None:
    """Refuse what :func:`load_backbone_weights` will not find; nothing is read or downloaded.

    Raises:
        WeightsError: ``weights`` is empty, a name that torchvision does not know, or a file that is not there.
    """
    if weights == "none" or weights.removeprefix(f"{ENUM}.") in MobileNet_V2_Weights.__members__:
        return
    if not weights:
        raise WeightsError(
            f"model.weights: has to be given: a state-dict file, one of {', '.join(enum_names())}, or none"
        )
    if weights.startswith(f"{ENUM}."):
        raise WeightsError(f"model.weights={weights}: torchvision has {', '.join(enum_names())}")
    path = Path(weights).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"model.weights={path}: there is no such file. Give the path of a MobileNetV2 state dict, "
            f"one of {', '.join(enum_names())}, or none."
        )


def enum_names() -> list[str]:
    """The names that torchvision knows, e.g. ``MobileNet_V2_Weights.IMAGENET1K_V1``."""
    return [f"{ENUM}.{name}" for name in MobileNet_V2_Weights.__members__]


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


def features_only(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The entries of the convolutional features, without their ``features.`` prefix."""
    prefix = "features."
    if any(key.startswith(prefix) for key in state):
        return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return state


def fit(features: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Copy ``state`` into ``features``; every tensor must be there and have the right shape.

    Raises:
        WeightsError: naming the first missing, unexpected and mismatched keys.
    """
    own = features.state_dict()
    # Older files lack the counter of batches, and frozen norm has none. No weight depends on it.
    relevant = lambda tensors: {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
    problem = mismatch(relevant(state), relevant(own))
    if not problem:
        features.load_state_dict({key: value for key, value in state.items() if key in own}, strict=False)
        return
    message = f"model.weights={source}: does not fit MobileNetV2's features. {problem}."
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


def _download(name: str) -> dict[str, Any]:
    entry = MobileNet_V2_Weights[name]
    try:
        return dict(entry.get_state_dict(progress=False, check_hash=True))
    except (URLError, OSError, http.client.HTTPException, RuntimeError) as error:
        raise WeightsError(
            f"model.weights={ENUM}.{name}: the download of {entry.url} failed ({first_line(error)}). Without a "
            "network, fetch that file elsewhere and give it as model.weights=PATH, or train from scratch with "
            "model.weights=none model.norm=batch."
        ) from None

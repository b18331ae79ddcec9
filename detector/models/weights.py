"""Initial weights of a backbone: none, published ones by name, or a state-dict file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from detector.config.schema import ModelConfig
from detector.config.targets import word_of
from detector.exceptions import WeightsError
from detector.models.catalogue import published
from detector.models.initial.files import check_file, is_file, no_file
from detector.models.initial.kinds import BackboneFile, published_names, read_initial
from detector.models.initial.tensors import mismatch
from detector.models.networks import Network


def load_backbone_weights(network: Network, config: ModelConfig) -> None:
    """Load the weights of ``config`` into a whole network.

    Args:
        network: that of ``config``, with its norm layers as they are to be.
        config: ``weights`` is ``"none"`` (leave it as it is), ``"imagenet"`` (those that the library of the network
            gives it), a name of torchvision's enum with or without the name of the enum, or a file of the network, with
            its classifier or without: see :func:`~detector.models.initial.kinds.read_initial`.

    Raises:
        WeightsError: the weights cannot be downloaded, read, or do not fit.
    """
    check_weights(config)
    weights = config.weights
    if weights == "none":
        return
    known = weights in names_of(config)
    states = [network.download(weights)] if known else _read(weights)
    fit(network, [network.of_file(state) for state in states], weights)


def check_weights(config: ModelConfig) -> None:
    """Refuse what :func:`load_backbone_weights` will not find; nothing is read or downloaded.

    Raises:
        WeightsError: ``weights`` is empty, a name that torchvision does not know, or a file that is not there.
    """
    weights, full = config.weights, published(config.backbone)
    if weights == "none" or weights in names_of(config):
        return
    choices = ", ".join(["a file", "the folder of a run", *published_names(config.published), *full, "none"])
    if not weights:
        raise WeightsError(f"model.weights: has to be given, one of these: {choices}")
    network = f"model.backbone={word_of(config.backbone)}"
    if re.fullmatch(r"\w+_Weights\.\w+", weights):
        raise WeightsError(f"model.weights={weights}: for {network}, torchvision has {', '.join(full[:-1]) or 'none'}")
    if not is_file(weights):
        names = [*names_of(config), *published_names(config.published), "COCO_V1", "none"]
        raise WeightsError(f"{no_file(weights, names)} For {network} give one of these: {choices}.")
    check_file(weights)


def names_of(config: ModelConfig) -> list[str]:
    """What ``weights`` may be that is downloaded: names of torchvision's enum, whole and short, and ``imagenet``."""
    full = published(config.backbone)
    return [*full, *(name.partition(".")[2] for name in full if "." in name)]


def _read(weights: str) -> list[dict[str, Tensor]]:
    found = read_initial(weights)
    if isinstance(found, BackboneFile):
        return found.states
    raise WeightsError(f"model.weights={weights}: this is a detector, not a backbone. DetectionModule starts from it")


def fit(network: Network, states: Sequence[Mapping[str, Tensor]], source: str) -> None:
    """Copy the first of ``states`` that fits into ``network``; every tensor must be there and have the right shape.

    Args:
        network: it is changed.
        states: the same weights under other names.
        source: of the weights, for messages.

    Raises:
        WeightsError: none fits; names the first missing, unexpected and mismatched keys of the last.
    """
    own = network.weighted.state_dict()
    # Older files lack the counter of batches, and frozen norm has none. No weight depends on it.
    relevant = lambda tensors: {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
    for state in states:
        problem = mismatch(relevant(state), relevant(own))
        if not problem:
            network.weighted.load_state_dict({k: value for k, value in state.items() if k in own}, strict=False)
            return
    message = f"model.weights={source}: does not fit {network.name}. {problem}."
    if any("running_mean" in key for key in state) and not any("running_mean" in key for key in own):
        message += " The weights were trained with batch norm: use model.norm=batch, frozen or sync."
    raise WeightsError(message)

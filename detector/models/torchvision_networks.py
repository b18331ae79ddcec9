"""torchvision's classification networks as chains of parts, each of which gives a map."""

from __future__ import annotations

import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from detector.models.downloads import downloading
from detector.models.maps import Measured, by_stride, describe, dry_runs, places_of_weights
from detector.models.networks import Network


class Chain(nn.Sequential):
    """Modules in a row, and the outputs of some of them.

    Attributes:
        taps: name of a module -> key of its output.
    """

    def __init__(self, modules: OrderedDict[str, nn.Module]):
        super().__init__(modules)
        self.taps: dict[str, str] = {}

    def forward(self, images: Tensor) -> Any:
        """The outputs of the modules in ``taps``: a dict, or if there is one, the tensor."""
        x, outputs = images, OrderedDict()
        for name, module in self._modules.items():
            x = module(x)
            if name in self.taps:
                outputs[self.taps[name]] = x
        return outputs if len(outputs) > 1 else x


@dataclass(frozen=True)
class Structure:
    """A network as a chain.

    Attributes:
        paths: of its modules in the network.
        containers: beginnings of paths that names of weights in the chain do not have, such as ``features.``.
        measured: the maps that the modules give.
    """

    paths: list[str]
    containers: list[str]
    measured: Measured

    def inside(self, key: str) -> str:
        """The name in the chain of a weight of the network."""
        return inside(key, self.containers)


KNOWN: dict[str, Structure] = {}  # network -> its structure, which is always the same


class TorchvisionNetwork(Network):
    """A classification network of torchvision, up to its last map."""

    def __init__(self, name: str, network: str):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of GoogLeNet and Inception, on initial weights
            whole = get_model(network, weights=None)
        self.weights = get_model_weights(network)
        # Weights from elsewhere: these networks rescale ImageNet's normalisation, given them, to this one.
        self.rescales = hasattr(whole, "transform_input")
        if network not in KNOWN:
            KNOWN[network] = chain_of(whole, name)
        self.known = chain = KNOWN[network]
        parts = OrderedDict((short(path), whole.get_submodule(path)) for path in chain.paths)
        self.unused = {key for key in whole.state_dict() if chain.inside(key).partition(".")[0] not in parts}
        self.chain = Chain(parts)
        super().__init__(name, self.chain, chain.measured)

    def normalization(self) -> tuple[Sequence[float], Sequence[float]]:
        """Those of the latest published weights."""
        if self.rescales:
            return [0.5] * 3, [0.5] * 3
        preset = self.weights["DEFAULT"].transforms()
        return preset.mean, preset.std

    def download(self, name: str) -> Mapping[str, Tensor]:
        """The weights of a name of torchvision's enum, or ``imagenet``, the best of it."""
        entry = self.weights["DEFAULT" if name == "imagenet" else name.rpartition(".")[2]]
        with downloading(name, entry.url, "that file elsewhere and give it"):
            return entry.get_state_dict(progress=False, check_hash=True)

    def of_file(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a file of the whole network, or of its ``features`` alone."""
        # The names of files for DenseNet before PyTorch 0.4, which torchvision still publishes.
        new = {re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", key): key for key in state}
        return {self.known.inside(key): state[old] for key, old in new.items() if key not in self.unused}

    def cut(self, keys: Sequence[Any]) -> list[Any]:
        """Leave out the parts after the last map."""
        names = list(self.chain._modules)
        for name in names[names.index(keys[-1]) + 1 :]:
            del self.chain._modules[name]
        self.chain.taps = {name: str(place) for place, name in enumerate(keys)}
        return list(self.chain.taps.values()) if len(keys) > 1 else [None]


def chain_of(network: nn.Module, name: str) -> Structure:
    """The modules that an image passes through one after the other, as long as they give maps.

    A module in the chain that has several strides inside is replaced by the modules in it. Whatever a network computes
    between its modules ends the chain; in classification networks this is the pooling before the classifier.

    Args:
        network: a whole classification network.
        name: for messages.

    Raises:
        ConfigError: the network takes images of its own size only.
    """
    shadow, first, second = dry_runs(network, name, calls_of)
    maps = {path: describe(short(path), out, second[path][1]) for path, (_, out) in first.items() if path in second}
    paths: list[str] = []
    x: Any = None
    for path, (given, out) in first.items():
        if "." not in path and (x is None or given is x):
            if maps[path] is None:
                break
            paths.append(path)
            x = out
    containers = []
    for path in list(paths):
        inner = [f"{path}.{child}" for child, _ in network.get_submodule(path).named_children()]
        strides = {found.stride for child in inner if (found := maps.get(child))}
        if len(strides) > 2 and isinstance(network.get_submodule(path), nn.Sequential):
            paths[paths.index(path) : paths.index(path) + 1] = inner
            containers.append(f"{path}.")
    chained = [found for path in paths if (found := maps[path])]
    last = by_stride(chained)
    outputs = {short(path): out for path, (_, out) in first.items() if path in paths}
    places = places_of_weights(shadow, [outputs[found.key] for found in last])
    places = {inside(key, containers): place for key, place in places.items()}
    return Structure(paths, containers, Measured(last, by_stride(chained[::-1]), places))


def calls_of(network: nn.Module, images: Tensor) -> dict[str, tuple[Any, Any]]:
    """Path of each module of ``network`` that takes one argument -> that and its output, in the order of the calls."""
    calls: dict[str, tuple[Any, Any]] = {}

    def note(path: str) -> Any:
        return lambda _, given, out: calls.update({path: (given[0], out)}) if len(given) == 1 else None

    hooks = [module.register_forward_hook(note(path)) for path, module in network.named_modules() if path]
    network(images)
    for hook in hooks:
        hook.remove()
    return calls


def inside(key: str, containers: Sequence[str]) -> str:
    """``key`` without the container that it begins with."""
    return key.removeprefix(next((c for c in containers if key.startswith(c)), ""))


def short(path: str) -> str:
    """The last part of a module's path."""
    return path.rpartition(".")[2]

"""timm's networks, all that give features."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from detector.exceptions import ConfigError
from detector.models.downloads import downloading
from detector.models.maps import Measured
from detector.models.networks import Network
from detector.words import first_line

# Arguments of timm's constructors that let a network for images of one size take those of others.
ANY_SIZE = {"dynamic_img_size": True, "strict_img_size": False}

KNOWN: dict[str, Measured] = {}  # network -> its maps, which are always the same


class Intermediates(nn.Module):
    """The intermediate maps of a network of timm.

    Args:
        model: the network.
        indices: places of the maps in its ``feature_info``.
    """

    def __init__(self, model: nn.Module, indices: Sequence[int]):
        super().__init__()
        self.model, self.indices = model, list(indices)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The maps [B, C, h, w], finest first."""
        return self.model.forward_intermediates(  # type: ignore[operator]
            images, indices=self.indices, output_fmt="NCHW", intermediates_only=True
        )


class TimmNetwork(Network):
    """A network of timm without its classifier."""

    def __init__(self, name: str, network: str):
        timm = timm_of(name)
        try:
            model: Any = timm.create_model(network)
            takes = inspect.signature(type(model)).parameters
            self.settings: dict[str, Any] = {key: value for key, value in ANY_SIZE.items() if key in takes}
            if self.settings:
                model = timm.create_model(network, **self.settings)
        except Exception as error:  # an unknown tag, say
            raise ConfigError(f"{name}: timm cannot build it: {first_line(error)}") from error
        self.network, self.preset = network, model.pretrained_cfg
        whole = set(model.state_dict())
        maps = range(len(model.feature_info))
        model.prune_intermediate_layers(list(maps))
        self.unused = whole - set(model.state_dict())
        self.intermediates = Intermediates(model, maps)
        super().__init__(name, self.intermediates, KNOWN.get(network), model)
        KNOWN[network] = self.measured

    def normalization(self) -> tuple[Sequence[float], Sequence[float]]:
        """Those of the network's ``pretrained_cfg``."""
        return self.preset["mean"], self.preset["std"]

    def download(self, name: str) -> Mapping[str, Tensor]:
        """The weights of the name, from the Hugging Face hub."""
        with downloading(name, f"timm's {self.network}", "the weights elsewhere and give their state dict"):
            return timm_of(self.name).create_model(self.network, pretrained=True, **self.settings).state_dict()

    def of_file(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a file of the whole network."""
        return {key: value for key, value in state.items() if key not in self.unused}

    def cut(self, keys: Sequence[Any]) -> list[Any]:
        """Leave out the layers after the last map."""
        self.weighted.prune_intermediate_layers(list(keys))  # type: ignore[operator]
        self.intermediates.indices = list(keys)
        return list(range(len(keys)))


def timm_of(name: str) -> Any:
    """The module ``timm``; ``name`` says what needs it."""
    try:
        import timm
    except ImportError:
        raise ConfigError(f'{name}: needs timm: pip install "multiscale-rcnn[timm]"') from None
    return timm

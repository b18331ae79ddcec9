"""Backbones: a network of any library, the maps that regions are pooled from, norm layers and frozen stages."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from detector.config.schema import ModelConfig
from detector.config.targets import word_of
from detector.exceptions import ConfigError
from detector.models.catalogue import find_network
from detector.models.maps import Map
from detector.models.norms import norm_layer, replace_batch_norm, set_batch_norm
from detector.models.weights import load_backbone_weights

PYRAMID = (4, 8, 16, 32, 64)  # strides of the maps that model=fpn can have
SINGLE = {"c4": 16, "c5": 32}  # model.name -> stride of its only map
SUBSAMPLED = 64  # stride of the map that has every second cell of the map of stride 32
STAGES = 5  # at most; what comes before them belongs to the first


@dataclass
class Backbone:
    """A network and what the detector has to know about it.

    Attributes:
        module: ``module(images[B, 3, H, W])`` returns one map [B, out_channels, h, w], known as ``"0"``, or a dict of
            maps.
        out_channels: channels of each map.
        pooled_names: names of the maps that regions are pooled from.
        pooled_strides: their strides in pixels of the resized image.
        image_mean: of the 0..1 RGB images that the network is for.
        image_std: their deviation.
    """

    module: nn.Module
    out_channels: int
    pooled_names: list[str]
    pooled_strides: list[int]
    image_mean: list[float]
    image_std: list[float]


class Pyramid(nn.Module):
    """A feature pyramid on maps of a network, with torchvision's names of weights.

    Args:
        body: the network.
        maps: those of its maps that are used, finest first.
        fpn: takes them as a dict with the names ``"0"``, ``"1"``, ...
    """

    def __init__(self, body: nn.Module, maps: Sequence[Map], fpn: nn.Module):
        super().__init__()
        self.body, self.maps, self.fpn = body, list(maps), fpn

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The maps of the pyramid for ``images`` [B, 3, H, W]."""
        output = self.body(images)
        return self.fpn(OrderedDict((str(place), found.of(output, images)) for place, found in enumerate(self.maps)))


class OneMap(nn.Module):
    """One map of a network that gives several, or gives it in another form.

    Args:
        body: the network.
        found: the map.
    """

    def __init__(self, body: nn.Module, found: Map):
        super().__init__()
        self.body, self.map = body, found

    def forward(self, images: Tensor) -> Tensor:
        """The map [B, C, h, w] for ``images`` [B, 3, H, W]."""
        return self.map.of(self.body(images), images)


class Subsample(ExtraFPNBlock):
    """Adds a map ``"pool"`` of twice the last map's stride, which has every second cell of the last map.

    Its values are those of torchvision's ``LastLevelMaxPool``, whose backward is not deterministic on CUDA.
    """

    def forward(self, results: list[Tensor], x: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        """Append the map to ``results`` and its name to ``names``."""
        return [*results, results[-1][..., ::2, ::2]], [*names, "pool"]


def anchor_strides(config: ModelConfig) -> list[int]:
    """The strides, in pixels of the resized image, of the maps that anchors are placed on.

    Raises:
        ConfigError: ``fpn_strides`` are not consecutive strides of :data:`PYRAMID`, nor one of them twice.
    """
    if config.name != "fpn":
        return [SINGLE[config.name]]
    wanted = list(config.fpn_strides)
    rows = [list(PYRAMID[i:j]) for i in range(len(PYRAMID) - 1) for j in range(i + 1, len(PYRAMID) + 1)]
    twice = [[stride, stride] for stride in PYRAMID[:-1]] + [[PYRAMID[-2], *PYRAMID[-2:]]]
    if wanted not in rows + twice:
        raise ConfigError(
            f"model.fpn_strides={wanted}: give neighbours of {', '.join(map(str, PYRAMID))} in this order, such as "
            f"[8,16] ({SUBSAMPLED} is every second cell of {PYRAMID[-2]} and needs it), or one of them twice"
        )
    return wanted


def build_backbone(config: ModelConfig) -> Backbone:
    """Build the backbone of ``config`` with its initial weights, frozen as configured.

    - ``fpn``: a feature pyramid over the last maps of ``fpn_strides``; of a stride that is given twice, over the first
      and the last. Stride 64 adds a subsampled map, which regions are not pooled from.
    - ``c4``, ``c5``: the last map of stride 16, of stride 32.

    ``module.stages`` has the stage of each of the network's weights that can train, counted from the last, by name.

    Raises:
        ConfigError: ``fpn_strides`` are not consecutive strides of :data:`PYRAMID`; there is no such network, or it has
            no map of a stride that is wanted.
        WeightsError: the initial weights cannot be read or do not fit.
    """
    anchored = anchor_strides(config)
    pooled = [stride for stride in anchored if stride != SUBSAMPLED]
    # The whole network is built for every model, so that all of them start from the same draws.
    network = find_network(config.backbone)
    replace_batch_norm(network.module, config.norm)
    set_batch_norm(network.module, config.norm, {"norm_eps": config.norm_eps, "norm_momentum": config.norm_momentum})
    load_backbone_weights(network, config)
    all_maps = network.measured.maps
    by_stride = {found.stride: found for found in all_maps}
    if not by_stride.keys() >= set(pooled):
        raise ConfigError(lacking(config, sorted(by_stride)))
    maps = [by_stride[stride] for stride in pooled]
    if len({found.stride for found in maps}) < len(maps):
        maps[0] = next(found for found in network.measured.entries if found.stride == pooled[0])
        if maps[0] == maps[1]:
            name = word_of(config.backbone)
            raise ConfigError(f"model.fpn_strides={anchored}: {name} has only one map of stride {pooled[0]}")
    keys = network.cut([found.key for found in maps])
    present = {name for name, _ in network.module.named_parameters()}  # frozen norm has none
    places = {name: place for name, place in network.measured.places.items() if name in present}
    stages = stages_of(places, all_maps.index(maps[-1]))
    maps = [replace(found, key=key) for found, key in zip(maps, keys, strict=True)]
    body = network.module
    freeze(body, {name for name, stage in stages.items() if stage < config.trainable_stages})
    channels = config.fpn_channels if config.name == "fpn" else maps[0].channels
    module: nn.Module
    inside = "body."
    if config.name == "fpn":
        layers = norm_layer(config.fpn_norm) if config.fpn_norm != "none" else None
        extra = Subsample() if SUBSAMPLED in anchored else None
        fpn = FeaturePyramidNetwork([found.channels for found in maps], channels, extra, layers)
        module = Pyramid(body, maps, fpn)
    elif maps[0].bare:
        module, inside = body, ""
    else:
        module = OneMap(body, maps[0])
    # What others read of it; a Module has no such attributes.
    setattr(module, "out_channels", channels)  # noqa: B010
    setattr(module, "stages", {f"{inside}{name}": stage for name, stage in stages.items()})  # noqa: B010
    mean, std = network.normalization()
    return Backbone(
        module, channels, [str(place) for place in range(len(maps))], pooled,
        list(config.image_mean or mean), list(config.image_std or std),
    )  # fmt: skip


def lacking(config: ModelConfig, strides: Sequence[int]) -> str:
    """The message for a network whose maps have ``strides``, and not all that are wanted; says what is possible."""
    rows = [list(PYRAMID[i:j]) for i in range(len(PYRAMID)) for j in range(i + 1, len(PYRAMID))]
    pyramids = [row for row in rows if set(row) <= set(strides)]
    possible = [f"model.fpn_strides={max(pyramids, key=len)}".replace(" ", "")] if pyramids else []
    possible += [f"model={name}" for name, stride in SINGLE.items() if stride in strides]
    wanted = f"model.fpn_strides={list(config.fpn_strides)}" if config.name == "fpn" else f"model={config.name}"
    return f"{wanted}: {word_of(config.backbone)} has maps of stride {', '.join(map(str, strides))} only" + (
        f"; give {' or '.join(possible)}" if possible else ""
    )


def stages_of(places: Mapping[str, int], last: int) -> dict[str, int]:
    """The stage of each weight, counted from the last, 0: a stage has the weights between two maps.

    Args:
        places: for each weight the place of the first map that it takes part in.
        last: place of the last map that is used. Weights after it are left out.
    """
    used = sorted({place for place in places.values() if place <= last}, reverse=True)
    return {name: min(used.index(place), STAGES - 1) for name, place in places.items() if place <= last}


def freeze(body: nn.Module, trainable: Collection[str]) -> None:
    """Let only the weights named ``trainable`` change. Batch norm of which none does keeps its statistics too."""
    for path, module in list(body.named_modules()):
        own = {f"{path}.{name}".removeprefix("."): p for name, p in module.named_parameters(recurse=False)}
        for name, parameter in own.items():
            parameter.requires_grad_(parameter.requires_grad and name in trainable)
        if isinstance(module, _BatchNorm) and not own.keys() & trainable:
            parent, _, name = path.rpartition(".")
            setattr(body.get_submodule(parent), name, replace_batch_norm(module, "frozen"))

"""MobileNetV2 backbones: their feature maps, strides, norm layers and frozen stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torchvision.models import mobilenet_v2
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from detector.config.schema import ModelConfig
from detector.exceptions import ConfigError
from detector.models.weights import load_backbone_weights

# First and last block of `mobilenet_v2().features` of each stage; a stage ends where the stride doubles.
STAGES = ((0, 1), (2, 3), (4, 6), (7, 13), (14, 18))
STRIDES = (2, 4, 8, 16, 32)
LAST_BLOCKS = {stride: last for stride, (_, last) in zip(STRIDES, STAGES, strict=True)}
TAPS = {3: 24, 6: 32, 13: 96, 18: 1280}  # block -> channels, for the last block of stages 2 to 5
SUBSAMPLED = 64  # stride of the map that has every second cell of the map of stride 32
PYRAMID = (*STRIDES[1:], SUBSAMPLED)


@dataclass
class Backbone:
    """A network and what the detector has to know about its output.

    Attributes:
        module: ``module(images[B, 3, H, W])`` returns one map [B, out_channels, h, w], known as ``"0"``, or a dict of
            maps.
        out_channels: channels of each map.
        pooled_names: names of the maps that regions are pooled from.
        pooled_strides: their strides in pixels of the resized image.
    """

    module: nn.Module
    out_channels: int
    pooled_names: list[str]
    pooled_strides: list[int]


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
        ConfigError: ``fpn_strides`` are not consecutive strides of :data:`PYRAMID`.
    """
    if config.name != "fpn":
        return [{"c4": STRIDES[3], "c5": STRIDES[4]}[config.name]]
    wanted = list(config.fpn_strides)
    rows = [list(PYRAMID[i:j]) for i in range(len(TAPS)) for j in range(i + 1, len(PYRAMID) + 1)]
    if wanted not in rows:
        raise ConfigError(
            f"model.fpn_strides={wanted}: give neighbours of {', '.join(map(str, PYRAMID))} in this order, such as "
            f"[8,16] ({SUBSAMPLED} is every second cell of {STRIDES[-1]} and needs it)"
        )
    return wanted


def build_backbone(config: ModelConfig) -> Backbone:
    """Build the backbone of ``config.name`` with its initial weights, frozen as configured.

    - ``fpn``: a feature pyramid over the blocks of ``fpn_strides`` (4 to 32: blocks 3, 6, 13 and 18). Stride 64 adds a
      subsampled map, which regions are not pooled from.
    - ``c4``: the last map of stride 16, with 96 channels.
    - ``c5``: all of ``mobilenet_v2().features``, with stride 32 and 1280 channels.

    Raises:
        ConfigError: ``fpn_strides`` are not consecutive strides of :data:`PYRAMID`.
        WeightsError: the initial weights cannot be read or do not fit.
    """
    anchored = anchor_strides(config)
    pooled = [stride for stride in anchored if stride != SUBSAMPLED]
    # The whole network is built for every model, so that all of them start from the same draws.
    features: nn.Sequential = mobilenet_v2(norm_layer=norm_layer(config.norm)).features
    load_backbone_weights(features, config.weights)
    blocks = [LAST_BLOCKS[stride] for stride in pooled]
    features = features[: blocks[-1] + 1]
    freeze_stages(features, config.trainable_stages)
    if config.name == "fpn":
        taps = {str(block): str(i) for i, block in enumerate(blocks)}
        pyramid = BackboneWithFPN(
            features,
            taps,
            [TAPS[block] for block in blocks],
            config.fpn_channels,
            extra_blocks=Subsample(),
            norm_layer=norm_layer(config.fpn_norm) if config.fpn_norm != "none" else None,
        )
        if SUBSAMPLED not in anchored:  # given no extra block, torchvision's constructor would add one
            pyramid.fpn.extra_blocks = None
        return Backbone(pyramid, config.fpn_channels, list(taps.values()), pooled)
    channels = TAPS[blocks[-1]]
    setattr(features, "out_channels", channels)  # noqa: B010 (FasterRCNN reads it; a Module has no such attribute)
    return Backbone(features, channels, ["0"], pooled)


def norm_layer(kind: str) -> Callable[..., nn.Module]:
    """A constructor ``channels -> module`` for ``frozen``, ``batch``, ``sync`` or ``group``."""
    kinds = {"frozen": FrozenBatchNorm2d, "batch": nn.BatchNorm2d, "sync": nn.SyncBatchNorm, "group": group_norm}
    return kinds[kind]


def group_norm(channels: int, most_groups: int = 32, least_channels: int = 8) -> nn.GroupNorm:
    """Group norm with the most groups that divide ``channels``: at most 32, and each of 8 channels or more.

    The usual 32 groups would normalise the narrow layers of MobileNetV2 one channel at a time.
    """
    groups = min(most_groups, max(channels // least_channels, 1))
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels)


def stage_of(path: str) -> int | None:
    """The stage that a module of a detector belongs to, counted from the last (0); None outside MobileNetV2.

    Args:
        path: name of a module in the detector, such as ``backbone.body.3.conv`` (fpn) or ``backbone.3.conv``.
    """
    parts = path.removeprefix("backbone.body.").removeprefix("backbone.").split(".")
    if not path.startswith("backbone.") or not parts[0].isdigit():
        return None
    block = int(parts[0])
    return next(len(STAGES) - 1 - i for i, (first, last) in enumerate(STAGES) if first <= block <= last)


def freeze_stages(features: nn.Sequential, trainable: int) -> None:
    """Freeze all but the last ``trainable`` stages of ``features``, norm statistics included."""
    present = [stage for stage in STAGES if stage[1] < len(features)]
    for first, last in present[: max(len(present) - trainable, 0)]:
        for index in range(first, last + 1):
            features[index].requires_grad_(False)
            features[index] = _freeze_batch_norm(features[index])


def _freeze_batch_norm(module: nn.Module) -> nn.Module:
    if isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm)):
        frozen = FrozenBatchNorm2d(module.num_features, eps=module.eps)
        frozen.load_state_dict({k: v for k, v in module.state_dict().items() if k in frozen.state_dict()})
        return frozen
    for name, child in module.named_children():
        setattr(module, name, _freeze_batch_norm(child))
    return module

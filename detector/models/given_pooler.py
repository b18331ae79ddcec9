"""A RoI operator of the user's own: what a node with ``_target_`` in ``roi.kind`` makes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import MultiScaleRoIAlign as TorchvisionMultiScaleRoIAlign

from detector.config.schema import RoiConfig
from detector.config.targets import build, fitting, word_of
from detector.exceptions import ConfigError

KEY = "roi.kind"
CHANNELS = 8  # of the maps of the trial where the model does not say how many it has


class GivenPooler(TorchvisionMultiScaleRoIAlign):
    """Any module that pools, in the form that torchvision's ``FasterRCNN`` accepts.

    Args:
        module: called as ``module(features, proposals, image_sizes)``; its weights are those of the detector.
        featmap_names: names of the maps, ordered from the smallest stride.
        config: with ``output_size`` and ``sampling_ratio``.
    """

    def __init__(self, module: nn.Module, featmap_names: list[str], config: RoiConfig):
        super().__init__(featmap_names, tuple(config.output_size), config.sampling_ratio)
        self.module = module

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Pool ``boxes`` (list of [N, 4] xyxy, pixels of the resized image) from ``x``: [sum N, C, *output_size]."""
        pooled: Tensor = self.module({name: x[name] for name in self.featmap_names}, boxes, image_shapes)
        return pooled

    def __repr__(self) -> str:
        return f"GivenPooler({self.module!r})"


def build_given_pooler(
    config: RoiConfig, featmap_names: list[str], strides: Sequence[int], channels: int | None
) -> GivenPooler:
    """What the node in ``roi.kind`` makes, tried once on small maps.

    The class gets ``featmap_names``, ``output_size`` and ``sampling_ratio`` as torchvision's ``MultiScaleRoIAlign``
    does, and ``spatial_scales``, ``canonical_scale`` and ``canonical_level`` if its signature names them. Random
    numbers that it draws are not missing elsewhere: a detector has the same initial weights with every operator.

    Args:
        config: the ``roi`` group.
        featmap_names: names of the maps, ordered from the smallest stride.
        strides: their strides in pixels of the resized image.
        channels: of the maps; None: any.

    Raises:
        ConfigError: the class cannot be built, fails on the maps, or gives something else than [K, C, height, width].
    """
    node = config.kind
    offers = fitting(
        node, KEY, spatial_scales=[1.0 / stride for stride in strides],
        canonical_scale=config.canonical_scale, canonical_level=config.canonical_level,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        module = build(
            node, KEY, returns=nn.Module, featmap_names=list(featmap_names), output_size=tuple(config.output_size),
            sampling_ratio=config.sampling_ratio, **offers,
        )  # fmt: skip
        pooler = GivenPooler(module, list(featmap_names), config)
        try_once(pooler, f"{KEY}: {word_of(node)}", strides, channels or CHANNELS)
    return pooler


def try_once(pooler: GivenPooler, where: str, strides: Sequence[int], channels: int) -> None:
    """Pool three boxes of two images, on the CPU or else on the GPU, and look at what comes out.

    Raises:
        ConfigError: it fails, or has another shape than the box head takes.
    """
    side = 4 * max(strides)
    shapes = {name: (2, channels, side // s, side // s) for name, s in zip(pooler.featmap_names, strides, strict=True)}
    boxes = side * torch.tensor([[0.1, 0.2, 0.3, 0.35], [0.2, 0.0, 0.9, 0.7], [0.0, 0.0, 1.0, 1.0]])
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    training = pooler.training
    for device in devices:
        try:
            with torch.no_grad():
                pooler.to(device).eval()
                maps = {name: torch.zeros(shape, device=device) for name, shape in shapes.items()}
                found = pooler(maps, [boxes[:2].to(device), boxes[2:].to(device)], [(side, side)] * 2)
            break
        except Exception as error:
            given = f"maps {', '.join(f'{name} {list(shape)}' for name, shape in shapes.items())} and 2 + 1 boxes"
            failed = ConfigError(f"{where} fails for {given} with {type(error).__name__}: {error}")
            failed.__cause__ = error
    else:
        raise failed
    pooler.to("cpu").train(training)
    wanted = (3, channels, *pooler.output_size)
    if not isinstance(found, Tensor) or tuple(found.shape) != wanted or not found.is_floating_point():
        got = f"{list(found.shape)} of {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
        raise ConfigError(
            f"{where} gives {got} for 3 boxes and maps of {channels} channels, where floats of {list(wanted)} are "
            "wanted: [boxes, channels, *roi.output_size]"
        )

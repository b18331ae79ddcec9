"""The maps of a network, found by dry runs: strides, channels, layouts, and the maps that each weight takes part in."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from detector.exceptions import ConfigError
from detector.words import first_line

# Height and width of the images of the two dry runs, multiples of 32 as those of batches are. A stride is the ratio of
# the differences, which does not depend on padding. Some networks do not take less than 75 pixels.
Run = Callable[[nn.Module, Tensor], dict[Any, Any]]
SIZES = ((128, 160), (192, 288))


@dataclass(frozen=True)
class Map:
    """A map that a network gives.

    Attributes:
        key: its place in the network's output; None if it is all of it.
        stride: pixels of the image from cell to cell.
        channels: their number.
        last: the channels are the last dimension, [B, h, w, C].
        whole: an image of H x W pixels gives H / stride x W / stride cells.
    """

    key: Any
    stride: int
    channels: int
    last: bool
    whole: bool

    @property
    def bare(self) -> bool:
        """Whether the network's output is this map, as a detector takes it."""
        return self.key is None and self.whole and not self.last

    def of(self, output: Any, images: Tensor) -> Tensor:
        """This map [B, C, H / stride, W / stride] in what the network gave for ``images`` [B, 3, H, W].

        The map of a network that pads too little gets a border of zeros.
        """
        found = named(output)[self.key]
        found = found.permute(0, 3, 1, 2) if self.last else found
        if self.whole:
            return found
        missing = [side // self.stride - cells for side, cells in zip(images.shape[-2:], found.shape[-2:], strict=True)]
        top, left = (cells // 2 for cells in missing)
        return functional.pad(found, (left, missing[1] - left, top, missing[0] - top))


@dataclass(frozen=True)
class Measured:
    """The maps of a network.

    Attributes:
        maps: the last of each stride, finest first.
        places: for each parameter that requires a gradient, and that a map depends on: its name, and the place of the
            finest such map.
    """

    maps: list[Map]
    places: dict[str, int]


def named(output: Any) -> dict[Any, Any]:
    """What a network gave, as a dict: the key of one tensor is None, those of a list are the places from 0."""
    if isinstance(output, Mapping):
        return dict(output)
    return {None: output} if isinstance(output, Tensor) else dict(enumerate(output))


def describe(key: Any, first: Any, second: Any) -> Map | None:
    """The map that the two dry runs gave; None if it is no map of the image."""
    if not all(isinstance(found, Tensor) and found.ndim == 4 for found in (first, second)):
        return None
    for axes in ((2, 3), (1, 2)):
        cells = [tuple(found.shape[axis] for axis in axes) for found in (first, second)]
        more = [b - a for a, b in zip(*cells, strict=True)]
        pixels = [b - a for a, b in zip(*SIZES, strict=True)]
        strides = {p / m for p, m in zip(pixels, more, strict=True) if m > 0}
        if min(more) > 0 and len(strides) == 1 and (stride := strides.pop()).is_integer():
            whole = all(tuple(side / stride for side in size) == of for size, of in zip(SIZES, cells, strict=True))
            last = axes == (1, 2)
            return Map(key, int(stride), first.shape[3 if last else 1], last, whole)
    return None


# ----------------------------------------------------------------------------------------------- dry runs
def dry_runs(network: nn.Module, name: str, run: Run) -> tuple[nn.Module, dict[Any, Any], dict[Any, Any]]:
    """What ``run`` gives for a copy of ``network``, in eval mode, on images of the two sizes.

    The copy is on the meta device, which has shapes and no numbers, unless the network cannot run there.

    Args:
        network: it is left alone.
        name: of the network, for messages.
        run: called with the copy and the images, returns tensors by key.

    Returns:
        The copy, and what ``run`` returned for each size.

    Raises:
        ConfigError: the network does not take the images.
    """
    problem: Exception | None = None
    # A network may compare numbers, or make tensors on the CPU.
    for copied in (without_content, copy.deepcopy):
        shadow = copied(network).eval()
        device = next((p.device for p in shadow.parameters()), torch.device("cpu"))
        try:
            with torch.enable_grad():
                first, second = (run(shadow, torch.zeros(1, 3, *size, device=device)) for size in SIZES)
            return shadow, first, second
        except Exception as error:  # whatever a network raises
            problem = error
    assert problem is not None
    raise ConfigError(
        f"{name}: cannot be a backbone, whose images may have any sides that are multiples of 32. Images of "
        f"{' and '.join(f'{h} x {w}' for h, w in SIZES)} pixels failed: {type(problem).__name__}: {first_line(problem)}"
    ) from problem


def measure(network: nn.Module, name: str) -> Measured:
    """The maps of a network.

    Args:
        network: ``network(images[B, 3, H, W])`` gives a map, a list or a dict of maps.
        name: of the network, for messages.

    Raises:
        ConfigError: the network does not take images of any size, or gives no maps.
    """
    shadow, first, second = dry_runs(network, name, lambda shadow, images: named(shadow(images)))
    maps = by_stride([m for key in first if key in second and (m := describe(key, first[key], second[key]))])
    if not maps:
        shapes = [str(list(t.shape)) if isinstance(t, Tensor) else type(t).__name__ for t in first.values()]
        raise ConfigError(
            f"{name}: gives no maps [B, C, H / stride, W / stride] of an image, but {', '.join(dict.fromkeys(shapes))}"
        )
    return Measured(maps, places_of_weights(shadow, [first[m.key] for m in maps]))


def by_stride(maps: Sequence[Map]) -> list[Map]:
    """The last map of each stride, finest first."""
    return sorted({m.stride: m for m in maps}.values(), key=lambda m: m.stride)


def places_of_weights(network: nn.Module, maps: Sequence[Tensor]) -> dict[str, int]:
    """For each parameter that one of ``maps`` was computed from: its name, and the place of the first such map."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    seen: set[Any] = set()
    places = {}
    for place, found in enumerate(maps):
        waiting = [found.grad_fn]
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            waiting += [above for above, _ in node.next_functions]
            if (name := names.get(id(getattr(node, "variable", None)))) is not None:
                places[name] = place
    return places


def without_content(module: nn.Module) -> Any:
    """A copy of ``module`` on the meta device; the original's tensors are not copied on the way."""
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
    for buffer in module.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(module, memo)

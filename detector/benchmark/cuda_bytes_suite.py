"""The bytes that the CUDA kernels ask for, counted from the boxes on any machine: what stands in where no GPU is.

Nothing here is a time. ``floor``: every touched pixel and the output once, what the device's memory has to deliver.
``asked for``: what the loads and stores of all threads add up to, as in ``linear_forward.cuh`` and
``backward_features.cuh``; the caches have to give the difference. ``once a RoI``: if the cache of a multiprocessor
gives what its block has read before. torchvision's kernels read four pixels a sample, or add to four atomically.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from detector.benchmark.table import Measured, Section
from detector.benchmark.timing import Bench
from detector.benchmark.workloads import SCALES, Scene, with_indices
from detector.config.schema import BenchmarkConfig
from roi_ops.cuda.plan import TILE_W
from roi_ops.geometry import Geometry
from roi_ops.reference.axis import align_weights
from roi_ops.reference.rois import groups

BINS, RATIO, CHANNELS = 7, 2, 256
TILE_H = 16  # rows of a backward tile where the arithmetic is in float32
FLOAT32 = 4  # bytes: what torchvision's kernel computes in under autocast too
COLUMNS = ("workload", "floor, MB", "once a RoI, MB", "asked for, MB", "written, MB", "torchvision's, MB", "ratio")
INPUTS = (
    "1000 RoIs (backward: 512) of one 800 x 1088 image, maps of strides 4 to 32 with 256 channels, 7 x 7 bins, "
    "sampling 2, the boxes of suite=roi_ops; 1 MB = 10^6 bytes. **Counted, nothing was timed.** Ours: merged pixels "
    "are loaded in forward; in backward each tile loads the gradients of the RoIs on it and writes its cells once "
    "(without the lists of RoIs, some KB, and the parts of crowded tiles). torchvision: four pixels a sample; in "
    "backward four atomic additions, counted as a write, after zeroing. Its autocast casts maps and results."
)


class Reach(NamedTuple):
    """What RoIs take of one axis of their map, Tensor[k] int64 each.

    Attributes:
        loads: the sum over bins of the pixels with a weight.
        pixels: pixels with a weight in any bin.
        tiles: tiles of the backward pass that hold them; 0 where there are none.
    """

    loads: Tensor
    pixels: Tensor
    tiles: Tensor


def measure(bench: Bench, config: BenchmarkConfig) -> Measured:
    """Count the workloads that the table of a GPU times; what is given takes no part."""
    scene = Scene((800, 1088), 1)
    maps, many, fewer = scene.pyramid(1), scene.proposals(1000), scene.proposals(512)
    records = [
        forward("forward, float32", scene, maps, many, FLOAT32),
        forward("forward, bfloat16 or float16", scene, maps, many, 2),
        backward("backward, float32", scene, maps, fewer, FLOAT32),
        backward("backward, bfloat16 or float16", scene, maps, fewer, 2),
    ]
    rows = [
        [record["workload"], *(f"{record[key] / 1e6:.1f}" for key in list(record)[1:]),
         f"{record['torchvision'] / record['asked_for']:.1f}x"] for record in records
    ]  # fmt: skip
    return Measured("Bytes of the CUDA kernels", INPUTS, [Section(COLUMNS, rows, records)], is_timed=False)


def forward(name: str, scene: Scene, maps: dict[str, Tensor], boxes: list[Tensor], size: int) -> dict[str, Any]:
    """Bytes of one pass over numbers of ``size`` bytes."""
    out, cells = _sizes(maps, boxes)
    axes = list(reaches(maps, boxes))
    loads, pixels = (sum(int((y[i] * x[i]).sum()) for y, x in axes) for i in (0, 1))
    theirs = (out * RATIO**2 * 4 + out) * FLOAT32
    if size != FLOAT32:
        theirs += (cells + out) * (size + FLOAT32)
    floor = scene.floor(maps, boxes, 1e3) * size / FLOAT32  # at 1000 bytes a second its milliseconds are bytes
    return _record(name, floor, (pixels + out) * size, (loads + out) * size, out * size, theirs)


def backward(name: str, scene: Scene, maps: dict[str, Tensor], boxes: list[Tensor], size: int) -> dict[str, Any]:
    """Bytes of the gradient of the features, of numbers of ``size`` bytes."""
    out, cells = _sizes(maps, boxes)
    staged = sum(int((y.tiles * x.tiles).sum()) for y, x in reaches(maps, boxes)) * BINS * BINS
    theirs = (out + cells + out * RATIO**2 * 4) * FLOAT32
    if size != FLOAT32:
        theirs += (cells + out) * (size + FLOAT32)
    floor = scene.floor(maps, boxes, 1e3, forward=False, backward=True) * size / FLOAT32
    return _record(name, floor, (out + cells) * size, (staged + cells) * size, cells * size, theirs)


def reaches(maps: dict[str, Tensor], boxes: list[Tensor]) -> Iterator[tuple[Reach, Reach]]:
    """Of the RoIs of each level: along y and along x."""
    shapes = [f.shape for f in maps.values()]
    geometry = Geometry(SCALES, "align", BINS, BINS, RATIO, 2, 5, 224.0, 4.0)
    for group in groups(shapes, with_indices(boxes), geometry):
        height, width = shapes[group.level][2:]
        yield reach(*group.y, height, TILE_H), reach(*group.x, width, TILE_W)


def reach(start: Tensor, extent: Tensor, length: int, side: int) -> Reach:
    """Of RoIs from ``start`` to ``start + extent``, Tensor[k], on an axis of ``length`` pixels, tiles of ``side``."""
    used = align_weights(start, extent, BINS, length, RATIO).weight != 0
    any_bin = used.any(1)
    first, last = any_bin.int().argmax(1), length - 1 - any_bin.flip(1).int().argmax(1)
    tiles = torch.where(any_bin.any(1), last // side - first // side + 1, 0)
    return Reach(used.sum((1, 2)), any_bin.sum(1), tiles)


def _sizes(maps: dict[str, Tensor], boxes: list[Tensor]) -> tuple[int, int]:
    """Bins of all RoIs, and cells of all maps, of one channel."""
    return sum(map(len, boxes)) * BINS * BINS, sum(f[:, 0].numel() for f in maps.values())


def _record(name: str, *one_channel: float) -> dict[str, Any]:
    keys = ("floor", "once_per_roi", "asked_for", "written", "torchvision")
    return {"workload": name, **dict(zip(keys, (value * CHANNELS for value in one_channel), strict=True))}

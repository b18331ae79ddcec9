"""How a call is cut into blocks, threads and shared memory: plain arithmetic on sizes, no device needed.

Every block stays within the 48 KB of shared memory that all devices give without being asked.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from roi_ops.geometry import MAX_KINDS, Geometry

WARP = 32
MAX_THREADS = 256
# Larger pooled sizes than this go to the reference backend: their tables would not fit.
MAX_POOLED = 128

# Bytes of shared memory: a table, the tile of results, everything of a block of the backward kernels.
TABLE_BUDGET = 10 << 10
TILE_BUDGET = 25 << 10
SHARED_BUDGET = 46 << 10

# A RoI's channels are split over blocks until there are this many: several for each multiprocessor.
ENOUGH_BLOCKS = 8192

# How maps are read: along channels by 16 bytes, along channels one by one, or along bins; enum Layout of ``slabs.cuh``.
LAYOUTS = ("vector", "scalar", "planar")
VECTOR, SCALAR, PLANAR = range(len(LAYOUTS))
INT_MAX = 2**31 - 1

# Constants of the backward kernels, those of ``tiles.cuh`` and ``staging.cuh`` (a test compares them): channels and
# columns of a tile, numbers from one of its pixels to the next in shared memory, bytes of the axes of a box, and from
# how many RoIs on a tile is split into how many parts.
TILE_CHANNELS, TILE_W, PITCH, AXES_BYTES = 32, 16, 33, 64
CROWD, PARTS = 64, 8
# Workspace for the parts: this fraction of what the gradients take, or that of a few tiles of each image.
CROWD_FRACTION, CROWD_LEAST = 4, 4


class Launch(NamedTuple):
    """Blocks, threads a block, and bytes of dynamic shared memory."""

    grid: int
    block: int
    shared: int


class Slabs(NamedTuple):
    """Fields of the ``Plan`` that kernels get, see ``arguments.cuh``, and how to launch."""

    slab: int
    groups: int
    lanes: int
    bins: int
    capacity_y: int
    capacity_x: int
    tile: int
    launch: Launch


def layout_of(features: list[Tensor]) -> int:
    """How kernels read the maps [N, C, H, W]: along channels by 16 bytes or one by one, or along bins."""
    channels = features[0].shape[1]
    vector = 16 // features[0].element_size()
    aligned = channels % vector == 0
    for f in features:
        n, c, y, x = f.stride()
        if c != 1 or (x == 1 and f.shape[3] > 1) or max(y, x) > INT_MAX:
            return PLANAR
        aligned = aligned and f.data_ptr() % 16 == 0 and n % vector == 0 and y % vector == 0 and x % vector == 0
    return VECTOR if aligned else SCALAR


def arithmetic_size(dtype: torch.dtype) -> int:
    """Bytes of a number in the arithmetic of features stored as ``dtype``."""
    return 8 if dtype == torch.float64 else 4


def table_capacity(kind: str, ratio: int, bins: int, length: int, most: int) -> int:
    """Entries of the table of an axis: all that any box needs, or ``most`` (see ``tables.cuh``)."""
    samples = kind.endswith("max")
    if kind == "pool":
        return 0
    if kind == "prroi":
        need = length + 3 * bins + 4
    elif ratio > 0:
        need = bins * (ratio if samples else min(2 * ratio, max(length, 1)))
    else:  # samples lie half a pixel to a pixel apart
        need = 2 * length + 3 * bins + 4 if samples else length + 3 * bins + 4
    return max(bins, min(need, most))


def table_bytes(capacity: int, bins: int, values: int, number: int) -> int:
    """Bytes of a ``Table<A, values>`` with ``number`` = sizeof(A)."""
    return _round_up(capacity * (values * number + 4) + 5 * bins * 4, 16)


def forward(features: list[Tensor], layout: int, rois: int, geometry: Geometry, direct: bool) -> Slabs:
    """Plan of ``linear_forward`` and ``max_forward``; ``direct``: results go out along channels, without a tile."""
    itemsize = features[0].element_size()
    is_max = geometry.kind in MAX_KINDS
    element = itemsize + 4 if is_max else itemsize
    slabs = _slabs(features, layout, geometry, Kept(1, 0 if direct else element, TABLE_BUDGET, TILE_BUDGET))
    groups = _groups(-(-features[0].shape[1] // slabs.slab), rois)
    return slabs._replace(groups=groups, launch=slabs.launch._replace(grid=rois * groups))


def boxes(features: list[Tensor], layout: int, rois: int, geometry: Geometry) -> Slabs:
    """Plan of ``linear_backward_boxes``: a block a RoI."""
    slabs = _slabs(features, layout, geometry, Kept(3, 0, TABLE_BUDGET, TILE_BUDGET))
    return slabs._replace(launch=slabs.launch._replace(grid=rois))


def points(channels: int, rois: int, bins: int, split: bool) -> Slabs:
    """Plan of ``max_gather`` (``split``: several blocks a RoI) and ``max_backward_boxes``: no tables, no tile."""
    slab = WARP
    groups = _groups(-(-channels // slab), rois) if split else 1
    block = min(MAX_THREADS, _round_up(min(slab, channels) * bins, WARP))
    return Slabs(slab, groups, 1, bins, 0, 0, 0, Launch(rois * groups, block, 0))


class Kept(NamedTuple):
    """What a block keeps in shared memory.

    Attributes:
        values: numbers of an entry of an axis table.
        tile_element: bytes of a result in the tile, 0 without one.
        table_budget, tile_budget: bytes that each may take.
    """

    values: int
    tile_element: int
    table_budget: int
    tile_budget: int


class Shape(NamedTuple):
    """What a plan depends on, apart from the number of RoIs; ``height`` and ``width`` are the largest of any map."""

    layout: int
    dtype: torch.dtype
    channels: int
    height: int
    width: int
    kind: str
    pooled_h: int
    pooled_w: int
    sampling_ratio: int


def _slabs(features: list[Tensor], layout: int, geometry: Geometry, kept: Kept) -> Slabs:
    """The plan but for the number of RoIs: one group."""
    heights, widths = zip(*(f.shape[2:] for f in features), strict=True)
    size = (features[0].shape[1], max(heights), max(widths))
    _, kind, pooled_h, pooled_w, sampling_ratio, *_ = geometry
    return _cut(Shape(layout, features[0].dtype, *size, kind, pooled_h, pooled_w, sampling_ratio), kept)


@lru_cache(maxsize=1024)
def _cut(shape: Shape, kept: Kept) -> Slabs:
    values, tile_element, table_budget, tile_budget = kept
    layout, _, channels, height, width, kind, pooled_h, pooled_w, sampling_ratio = shape
    number = arithmetic_size(shape.dtype)
    vector = 16 // shape.dtype.itemsize if layout == VECTOR else 1
    lanes = min(WARP, _power_of_two(-(-channels // vector)))
    slab = min(2 * WARP, channels) if layout == PLANAR else lanes * vector
    entry = values * number + 4
    capacity, tables = [], 0
    for bins, length in ((pooled_h, height), (pooled_w, width)):
        capacity.append(table_capacity(kind, sampling_ratio, bins, length, table_budget // entry))
        if kind != "pool":
            tables += table_bytes(capacity[-1], bins, values, number)
    bins = pooled_h * pooled_w
    here, tile = bins, 0
    if tile_element:
        here = max(1, min(bins, min(tile_budget, SHARED_BUDGET - tables) // (slab * tile_element)))
        if here < bins:
            here -= here % 2 == 0  # channels an odd number of bins apart meet in fewer banks of shared memory
        tile = _round_up(slab * here * tile_element, 16) + 16
    items = slab * here if layout == PLANAR else lanes * here
    launch = Launch(0, _threads(items), tables + tile)
    return Slabs(slab, 1, lanes, here, capacity[0], capacity[1], tables, launch)


def _groups(slabs: int, rois: int) -> int:
    return max(1, min(slabs, -(-ENOUGH_BLOCKS // max(rois, 1))))


def _threads(items: int) -> int:
    """Threads of a block that leave the fewest idle in the last turn; of equals the most."""
    choices = range(WARP, min(MAX_THREADS, _round_up(items, WARP)) + 1, WARP)
    enough = [n for n in choices if n >= MAX_THREADS // 2] or [choices[-1]]
    return min(enough, key=lambda n: (_round_up(items, n), -n))


class Tiles(NamedTuple):
    """Plan of ``backward_features``.

    Attributes:
        begin: first tile of each level, and the end.
        slabs: of channels.
        chunk_bins, staged: bins of a RoI and RoIs that are staged at a time.
        crowd_slots: tiles of an image that can be split; 0 if there are too few RoIs to crowd one.
        partial: numbers of workspace for their parts.
        launch: of the kernel itself.
    """

    begin: list[int]
    slabs: int
    chunk_bins: int
    staged: int
    crowd_slots: int
    partial: int
    launch: Launch


def backward(gradients: list[Tensor], rois: int, geometry: Geometry, is_max: bool) -> Tiles:
    """Plan of ``backward_features`` that writes ``gradients`` [N, C, H_l, W_l]."""
    images, channels = gradients[0].shape[:2]
    number = arithmetic_size(gradients[0].dtype)
    tile_h = 16 if number == 4 else 8
    begin = [0]
    for g in gradients:
        begin.append(begin[-1] + images * -(-g.shape[2] // tile_h) * -(-g.shape[3] // TILE_W))
    slabs = -(-channels // TILE_CHANNELS)
    h, w = geometry.pooled_h, geometry.pooled_w
    finished = _round_up(tile_h * TILE_W * PITCH * number, 16)
    room = SHARED_BUDGET - finished if is_max else finished
    a_bin = PITCH * (number + 4 if is_max else number)
    fixed = 8 * (h + w) + (AXES_BYTES if is_max else number * (h * tile_h + w * TILE_W))
    chunk = min(h * w, (room - fixed - 16) // a_bin)
    if chunk >= w:
        chunk = chunk // w * w
    slot = _round_up(fixed + chunk * a_bin, 16)
    staged = max(1, min(4, room // slot))
    shared = finished + staged * slot if is_max else max(finished, staged * slot)
    crowd = 0
    if rois > CROWD:
        crowd = min(begin[-1] // images, max(CROWD_LEAST, begin[-1] // images // (CROWD_FRACTION * PARTS)))
    parts = images * crowd * PARTS * slabs
    launch = Launch(begin[-1] * slabs + parts, MAX_THREADS, shared)
    return Tiles(begin, slabs, chunk, staged, crowd, parts * tile_h * TILE_W * TILE_CHANNELS, launch)


def _round_up(n: int, to: int) -> int:
    return -(-n // to) * to


def _power_of_two(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()

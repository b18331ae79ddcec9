"""The kernels' arguments, ``arguments.cuh`` in ctypes field by field, filled from tensors."""

from __future__ import annotations

import ctypes
import struct
from ctypes import Structure, c_double, c_int, c_longlong, c_void_p

import torch
from torch import Tensor

from roi_ops.geometry import KIND_NUMBERS, Geometry

MAX_LEVELS = 8


class Level(Structure):
    """A feature map, or the gradient of one; strides in elements."""

    _fields_ = [
        ("data", c_void_p),
        ("stride_n", c_longlong),
        ("stride_c", c_longlong),
        ("stride_y", c_longlong),
        ("stride_x", c_longlong),
        ("scale", c_double),
        ("height", c_int),
        ("width", c_int),
    ]


class Call(Structure):
    """What is pooled."""

    _fields_ = [
        ("level", Level * MAX_LEVELS),
        ("boxes", c_void_p),
        ("canonical_scale", c_double),
        ("canonical_level", c_double),
        *[(name, c_int) for name in ("levels", "images", "channels", "rois", "kind", "pooled_h", "pooled_w")],
        *[(name, c_int) for name in ("sampling_ratio", "k_min", "k_max")],
    ]


class Pooled(Structure):
    """A tensor [rois, channels, bins]."""

    _fields_ = [("data", c_void_p), ("stride_k", c_longlong), ("stride_c", c_longlong), ("stride_bin", c_longlong)]


class Plan(Structure):
    """How a call is cut into blocks; see :mod:`roi_ops.cuda.plan`."""

    _fields_ = [(name, c_int) for name in ("slab", "groups", "lanes", "bins", "capacity_y", "capacity_x", "tile")]


class ForwardArguments(Structure):
    """Of ``linear_forward`` and ``max_forward``."""

    _fields_ = [("call", Call), ("out", Pooled), ("argmax", Pooled), ("plan", Plan)]


class PointArguments(Structure):
    """Of ``linear_backward_boxes``, ``max_backward_boxes`` and ``max_gather``."""

    _fields_ = [("call", Call), ("grad", Pooled), ("argmax", Pooled), ("out", c_void_p), ("plan", Plan)]


class Bins(Structure):
    """RoIs sorted by image and level."""

    _fields_ = [(name, c_void_p) for name in ("key", "window", "order", "begin", "count")]


class Crowd(Structure):
    """Tiles that several blocks sum up."""

    _fields_ = [*[(name, c_void_p) for name in ("count", "slot", "tile", "partial")], ("slots", c_int)]


class BackwardArguments(Structure):
    """Of ``key_boxes``, ``sort_boxes``, ``count_tiles``, ``give_slots``, ``backward_features`` and ``add_parts``."""

    _fields_ = [
        ("call", Call),
        ("grad", Pooled),
        ("argmax", Pooled),
        ("bins", Bins),
        ("crowd", Crowd),
        ("tile_begin", c_int * (MAX_LEVELS + 1)),
        ("slabs", c_int),
        ("chunk_bins", c_int),
        ("staged", c_int),
    ]


# A ``Call`` for :mod:`struct`: one call writes all of it, where setting field by field takes as long as the kernel.
_CALL = struct.Struct("@" + "Pqqqqdii" * MAX_LEVELS + "Pdd10i")
_NO_LEVEL = (0,) * 8


def fill_call(call: Call, maps: list[Tensor], boxes: Tensor, geometry: Geometry) -> None:
    """Describe the maps [N, C, H_l, W_l] and the boxes [K, 5] of a call."""
    values: list[float] = []
    for f, scale in zip(maps, geometry.scales, strict=False):
        images, channels, height, width = f.shape
        values += (f.data_ptr(), *f.stride(), scale, height, width)
    values += _NO_LEVEL * (MAX_LEVELS - len(maps))
    values += (boxes.data_ptr(), geometry.canonical_scale, geometry.canonical_level)
    values += (len(maps), images, channels, boxes.shape[0])
    values += (KIND_NUMBERS[geometry.kind], geometry.pooled_h, geometry.pooled_w)
    values += (max(geometry.sampling_ratio, 0), geometry.k_min, geometry.k_max)
    _CALL.pack_into(call, 0, *values)


def fill_pooled(pooled: Pooled, tensor: Tensor) -> None:
    """Describe a Tensor[K, C, pooled_h, pooled_w] that :func:`pooled_form` made or would leave as it is."""
    channels, bins = tensor.shape[1], tensor.shape[2] * tensor.shape[3]
    pooled.data = tensor.data_ptr()
    pooled.stride_k = channels * bins
    if tensor.is_contiguous():
        pooled.stride_c, pooled.stride_bin = bins, 1
    else:
        pooled.stride_c, pooled.stride_bin = 1, channels


def pooled_form(tensor: Tensor) -> Tensor:
    """The tensor itself if it is contiguous or channels_last, else a contiguous copy."""
    if tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor
    return tensor.contiguous()


def sizes() -> dict[str, int]:
    """Bytes of each struct, for the test that holds them against those of the compiler."""
    structs: tuple[type[Structure], ...] = (Level, Call, Pooled, Plan, Bins, Crowd)
    structs += (ForwardArguments, PointArguments, BackwardArguments)
    return {s.__name__: ctypes.sizeof(s) for s in structs}

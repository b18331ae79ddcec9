"""The operators as PyTorch sees them: ``torch.library`` schemas, fake kernels, choice of backend.

Seven operators carry everything (see ``reference`` for what each computes). Their derivatives are registered in
``autograd.py``, what ``torch.vmap`` makes of them in ``batching.py``; ``dispatch.py`` decides which calls go through
them.

A :class:`torch.library.Library` with Python kernels costs a few microseconds a call, where
``torch.library.custom_op`` costs ninety for a list of four features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from roi_ops import backends, maps
from roi_ops.geometry import Geometry

_GEOMETRY = (
    "float[] scales, str kind, int pooled_h, int pooled_w, int sampling_ratio, int k_min, int k_max, "
    "float canonical_scale, float canonical_level"
)
_MAPS = "SymInt[] sizes, bool[] channels_last"  # see maps.describe
SCHEMAS = {
    "linear_forward": f"(Tensor[] features, Tensor boxes, bool channels_last, {_GEOMETRY}) -> Tensor",
    "linear_backward_features": f"(Tensor grad, Tensor boxes, {_MAPS}, {_GEOMETRY}) -> Tensor[]",
    "linear_backward_boxes": f"(Tensor grad, Tensor[] features, Tensor boxes, {_GEOMETRY}) -> Tensor",
    "max_forward": f"(Tensor[] features, Tensor boxes, bool channels_last, {_GEOMETRY}) -> (Tensor, Tensor)",
    "max_gather": f"(Tensor[] features, Tensor argmax, Tensor boxes, {_GEOMETRY}) -> Tensor",
    "max_backward_features": f"(Tensor grad, Tensor argmax, Tensor boxes, {_MAPS}, {_GEOMETRY}) -> Tensor[]",
    "max_backward_boxes": f"(Tensor grad, Tensor argmax, Tensor[] features, Tensor boxes, {_GEOMETRY}) -> Tensor",
}

library = torch.library.Library("roi_ops", "DEF")


def _define(name: str, schema: str) -> None:
    library.define(name + schema)

    def on(device_type: str) -> Any:
        def kernel(*args: Any) -> Any:
            return getattr(backends.select(device_type), name)(*args)

        return kernel

    for key in ("CPU", "CUDA", "MPS", "XPU"):
        library.impl(name, on(key.lower()), key)


for _name, _schema in SCHEMAS.items():
    _define(_name, _schema)

OPERATORS = {name: getattr(torch.ops.roi_ops, name).default for name in SCHEMAS}
"""The registered operators by name."""


# ---------------------------------------------------------------------------------------- fake kernels
def _empty(like: Tensor, shape: Sequence[int], channels_last: bool) -> Tensor:
    return like.new_empty(shape).to(memory_format=maps.memory_format(channels_last))


def _pooled(feature: Tensor, boxes: Tensor, channels_last: bool, geometry: Geometry) -> Tensor:
    shape = (boxes.shape[0], feature.shape[1], geometry.pooled_h, geometry.pooled_w)
    return _empty(feature, shape, channels_last)


def _gradients(grad: Tensor, sizes: list[int], channels_last: list[bool]) -> list[Tensor]:
    return [_empty(grad, *form) for form in zip(maps.shapes(sizes), channels_last, strict=True)]


@torch.library.register_fake("roi_ops::linear_forward", lib=library)
def _(features, boxes, channels_last, *geom):
    return _pooled(features[0], boxes, channels_last, Geometry(*geom))


@torch.library.register_fake("roi_ops::linear_backward_features", lib=library)
def _(grad, boxes, sizes, channels_last, *geom):
    return _gradients(grad, sizes, channels_last)


@torch.library.register_fake("roi_ops::linear_backward_boxes", lib=library)
def _(grad, features, boxes, *geom):
    return torch.empty_like(boxes)


@torch.library.register_fake("roi_ops::max_forward", lib=library)
def _(features, boxes, channels_last, *geom):
    out = _pooled(features[0], boxes, channels_last, Geometry(*geom))
    return out, torch.empty_like(out, dtype=torch.int32)


@torch.library.register_fake("roi_ops::max_gather", lib=library)
def _(features, argmax, boxes, *geom):
    return features[0].new_empty(argmax.shape)


@torch.library.register_fake("roi_ops::max_backward_features", lib=library)
def _(grad, argmax, boxes, sizes, channels_last, *geom):
    return _gradients(grad, sizes, channels_last)


@torch.library.register_fake("roi_ops::max_backward_boxes", lib=library)
def _(grad, argmax, features, boxes, *geom):
    return torch.empty_like(boxes)

"""The operators as PyTorch sees them: ``torch.library`` schemas, fake kernels, autograd, choice of backend.

Seven operators carry everything (see ``reference`` for what each computes). First derivatives are operators
themselves, so that compiled kernels serve them; second derivatives with respect to features are operators
again, those of box gradients come from autograd through the reference.

A :class:`torch.library.Library` with Python kernels costs a few microseconds a call, where
``torch.library.custom_op`` costs ninety for a list of four features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from roi_ops import backends, reference
from roi_ops.reference.rois import gradient_format

_GEOMETRY = (
    "float[] scales, str kind, int pooled_h, int pooled_w, int sampling_ratio, int k_min, int k_max, "
    "float canonical_scale, float canonical_level"
)
_SCHEMAS = {
    "linear_forward": f"(Tensor[] features, Tensor boxes, bool channels_last, {_GEOMETRY}) -> Tensor",
    "linear_backward_features": f"(Tensor grad, Tensor[] features, Tensor boxes, {_GEOMETRY}) -> Tensor[]",
    "linear_backward_boxes": f"(Tensor grad, Tensor[] features, Tensor boxes, {_GEOMETRY}) -> Tensor",
    "max_forward": f"(Tensor[] features, Tensor boxes, bool channels_last, {_GEOMETRY}) -> (Tensor, Tensor)",
    "max_gather": f"(Tensor[] features, Tensor argmax, Tensor boxes, {_GEOMETRY}) -> Tensor",
    "max_backward_features": (
        f"(Tensor grad, Tensor argmax, Tensor[] features, Tensor boxes, {_GEOMETRY}) -> Tensor[]"
    ),
    "max_backward_boxes": f"(Tensor grad, Tensor argmax, Tensor[] features, Tensor boxes, {_GEOMETRY}) -> Tensor",
}

_library = torch.library.Library("roi_ops", "DEF")


def _define(name: str, schema: str) -> None:
    _library.define(name + schema)

    def on(device_type: str) -> Any:
        def kernel(*args: Any) -> Any:
            return getattr(backends.select(device_type), name)(*args)

        return kernel

    for key in ("CPU", "CUDA", "MPS", "XPU"):
        _library.impl(name, on(key.lower()), key)


for _name, _schema in _SCHEMAS.items():
    _define(_name, _schema)

linear_forward = torch.ops.roi_ops.linear_forward.default
linear_backward_features = torch.ops.roi_ops.linear_backward_features.default
linear_backward_boxes = torch.ops.roi_ops.linear_backward_boxes.default
max_forward = torch.ops.roi_ops.max_forward.default
max_gather = torch.ops.roi_ops.max_gather.default
max_backward_features = torch.ops.roi_ops.max_backward_features.default
max_backward_boxes = torch.ops.roi_ops.max_backward_boxes.default


# ---------------------------------------------------------------------------------------- fake kernels
def _pooled(feature: Tensor, boxes: Tensor, channels_last: bool, pooled_h: int, pooled_w: int) -> Tensor:
    return feature.new_empty(boxes.shape[0], feature.shape[1], pooled_h, pooled_w).to(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )


def _gradients(features: list[Tensor]) -> list[Tensor]:
    return [f.new_empty(f.shape).to(memory_format=gradient_format(f)) for f in features]


@torch.library.register_fake("roi_ops::linear_forward", lib=_library)
def _(features, boxes, channels_last, scales, kind, pooled_h, pooled_w, *geom):
    return _pooled(features[0], boxes, channels_last, pooled_h, pooled_w)


@torch.library.register_fake("roi_ops::linear_backward_features", lib=_library)
def _(grad, features, boxes, *geom):
    return _gradients(features)


@torch.library.register_fake("roi_ops::linear_backward_boxes", lib=_library)
def _(grad, features, boxes, *geom):
    return torch.empty_like(boxes)


@torch.library.register_fake("roi_ops::max_forward", lib=_library)
def _(features, boxes, channels_last, scales, kind, pooled_h, pooled_w, *geom):
    out = _pooled(features[0], boxes, channels_last, pooled_h, pooled_w)
    return out, torch.empty_like(out, dtype=torch.int32)


@torch.library.register_fake("roi_ops::max_gather", lib=_library)
def _(features, argmax, boxes, *geom):
    return features[0].new_empty(argmax.shape)


@torch.library.register_fake("roi_ops::max_backward_features", lib=_library)
def _(grad, argmax, features, boxes, *geom):
    return _gradients(features)


@torch.library.register_fake("roi_ops::max_backward_boxes", lib=_library)
def _(grad, argmax, features, boxes, *geom):
    return torch.empty_like(boxes)


# -------------------------------------------------------------------------------------------- autograd
# Inputs of every operator: tensors first, geometry last; `ctx.geom` keeps the latter. Feature maps are kept
# for their shapes even where only the boxes matter: a detector's RPN keeps them alive anyway.
def _save_linear(ctx: Any, inputs: tuple, output: Any) -> None:
    features, boxes, _, *ctx.geom = inputs
    ctx.save_for_backward(boxes, *features)


def _linear_forward_backward(ctx: Any, grad: Tensor) -> tuple:
    boxes, *features = ctx.saved_tensors
    # A list argument needs its gradients if any of its tensors does.
    d_features = linear_backward_features(grad, features, boxes, *ctx.geom) if ctx.needs_input_grad[0] else None
    d_boxes = linear_backward_boxes(grad, features, boxes, *ctx.geom) if ctx.needs_input_grad[1] else None
    return d_features, d_boxes, None, *[None] * len(ctx.geom)


def _save_backward(ctx: Any, inputs: tuple, output: Any) -> None:
    grad, features, boxes, *ctx.geom = inputs
    ctx.save_for_backward(grad, boxes, *features)


def _linear_backward_features_backward(ctx: Any, d_gradients: list[Tensor | None]) -> tuple:
    grad, boxes, *features = ctx.saved_tensors
    v = [torch.zeros_like(f) if d is None else d for d, f in zip(d_gradients, features, strict=True)]
    d_grad = linear_forward(v, boxes, False, *ctx.geom) if ctx.needs_input_grad[0] else None
    d_boxes = linear_backward_boxes(grad, v, boxes, *ctx.geom) if ctx.needs_input_grad[2] else None
    return d_grad, [None] * len(features), d_boxes, *[None] * len(ctx.geom)


def _through_reference(
    name: str, tensors: list[Tensor], wanted: list[bool], v: Tensor, call: Any
) -> list[Tensor | None]:
    """Vector-Jacobian product of a reference function by autograd; keeps the graph if one is being built."""
    if isinstance(v, FakeTensor) or torch.compiler.is_compiling():
        raise NotImplementedError(f"the derivative of {name} cannot be compiled; call it outside torch.compile")
    with torch.enable_grad():
        inputs = [
            t.view_as(t) if w and t.requires_grad else t.detach().requires_grad_(w)
            for t, w in zip(tensors, wanted, strict=True)
        ]
        result = call(getattr(reference, name), inputs)
        chosen = [t for t, w in zip(inputs, wanted, strict=True) if w]
        found = iter(torch.autograd.grad(result, chosen, v, create_graph=v.requires_grad, allow_unused=True))
    return [next(found) if w else None for w in wanted]


def _linear_backward_boxes_backward(ctx: Any, v: Tensor) -> tuple:
    grad, boxes, *features = ctx.saved_tensors
    need_grad, need_features, need_boxes = ctx.needs_input_grad[:3]
    wanted = [need_grad, need_boxes, *[need_features and f.is_floating_point() for f in features]]
    d_grad, d_boxes, *d_features = _through_reference(
        "linear_backward_boxes",
        [grad, boxes, *features],
        wanted,
        v,
        lambda f, t: f(t[0], t[2:], t[1], *ctx.geom),
    )
    return d_grad, d_features, d_boxes, *[None] * len(ctx.geom)


def _save_max(ctx: Any, inputs: tuple, output: Any) -> None:
    features, boxes, _, *ctx.geom = inputs
    ctx.save_for_backward(output[1], boxes, *features)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _max_forward_backward(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple:
    argmax, boxes, *features = ctx.saved_tensors
    d_features = d_boxes = None
    if grad is not None and ctx.needs_input_grad[0]:
        d_features = max_backward_features(grad, argmax, features, boxes, *ctx.geom)
    # Quantised bins do not follow the box: RoIPool's gradient with respect to it is zero almost everywhere.
    if grad is not None and ctx.needs_input_grad[1] and ctx.geom[1] != "pool":
        d_boxes = max_backward_boxes(grad, argmax, features, boxes, *ctx.geom)
    return d_features or [None] * len(features), d_boxes, None, *[None] * len(ctx.geom)


def _save_max_backward(ctx: Any, inputs: tuple, output: Any) -> None:
    grad, argmax, features, boxes, *ctx.geom = inputs
    ctx.save_for_backward(grad, argmax, boxes, *features)


def _max_backward_features_backward(ctx: Any, d_gradients: list[Tensor | None]) -> tuple:
    grad, argmax, boxes, *features = ctx.saved_tensors
    v = [torch.zeros_like(f) if d is None else d for d, f in zip(d_gradients, features, strict=True)]
    d_grad = max_gather(v, argmax, boxes, *ctx.geom) if ctx.needs_input_grad[0] else None
    d_boxes = None
    if ctx.needs_input_grad[3] and ctx.geom[1] != "pool":
        d_boxes = max_backward_boxes(grad, argmax, v, boxes, *ctx.geom)
    return d_grad, None, [None] * len(features), d_boxes, *[None] * len(ctx.geom)


def _max_backward_boxes_backward(ctx: Any, v: Tensor) -> tuple:
    grad, argmax, boxes, *features = ctx.saved_tensors
    need_grad, _, need_features, need_boxes = ctx.needs_input_grad[:4]
    d_grad, d_boxes, *d_features = _through_reference(
        "max_backward_boxes",
        [grad, boxes, *features],
        [need_grad, need_boxes, *[need_features] * len(features)],
        v,
        lambda f, t: f(t[0], argmax, t[2:], t[1], *ctx.geom),
    )
    return d_grad, None, d_features, d_boxes, *[None] * len(ctx.geom)


def _save_gather(ctx: Any, inputs: tuple, output: Any) -> None:
    features, argmax, boxes, *ctx.geom = inputs
    ctx.save_for_backward(argmax, boxes, *features)


def _max_gather_backward(ctx: Any, grad: Tensor) -> tuple:
    argmax, boxes, *features = ctx.saved_tensors
    d_features = None
    if ctx.needs_input_grad[0]:
        d_features = max_backward_features(grad, argmax, features, boxes, *ctx.geom)
    d_boxes = None
    if ctx.needs_input_grad[2] and ctx.geom[1] != "pool":
        d_boxes = max_backward_boxes(grad, argmax, features, boxes, *ctx.geom)
    return d_features or [None] * len(features), None, d_boxes, *[None] * len(ctx.geom)


def _keeping_backend(setup: Any) -> Any:
    """Autograd runs in threads of its own, and after the block of ``use_backend``: what was forced is kept."""

    def keep(ctx: Any, inputs: tuple, output: Any) -> None:
        ctx.backend = backends.forced()
        setup(ctx, inputs, output)

    return keep


def _with_backend(backward: Any) -> Any:
    def with_backend(ctx: Any, *gradients: Any) -> tuple:
        if torch.compiler.is_compiling() or ctx.backend == backends.forced():
            return backward(ctx, *gradients)
        with backends.use_backend(ctx.backend):
            return backward(ctx, *gradients)

    return with_backend


for _name, _backward, _setup in (
    ("linear_forward", _linear_forward_backward, _save_linear),
    ("linear_backward_features", _linear_backward_features_backward, _save_backward),
    ("linear_backward_boxes", _linear_backward_boxes_backward, _save_backward),
    ("max_forward", _max_forward_backward, _save_max),
    ("max_gather", _max_gather_backward, _save_gather),
    ("max_backward_features", _max_backward_features_backward, _save_max_backward),
    ("max_backward_boxes", _max_backward_boxes_backward, _save_max_backward),
):
    torch.library.register_autograd(
        f"roi_ops::{_name}", _with_backend(_backward), setup_context=_keeping_backend(_setup), lib=_library
    )

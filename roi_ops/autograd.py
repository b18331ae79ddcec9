"""Derivatives of the operators, said once for the registered operators and for eager calls.

First derivatives are operators themselves, so that compiled kernels serve them; second derivatives with respect to
features are operators again, those of box gradients come from autograd through the reference.

A rule is two functions: one saves what the other needs. ``torch.library`` calls them for the registered operators. For
eager calls a :class:`torch.autograd.Function` does, which takes less than half the time (see ``dispatch.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from roi_ops import backends, dispatch, ops, reference


class Rule(NamedTuple):
    """The derivative of one operator.

    Attributes:
        save: gets a context, the operator's inputs and its output. Inputs are tensors first and geometry last;
            ``ctx.geom`` keeps the latter. Feature maps are kept for their shapes even where only the boxes matter: a
            detector's RPN keeps them alive anyway.
        backward: gets the context, for each input whether its gradient is wanted (that of a list of tensors is if any
            tensor's is), and the gradients of the outputs. Returns the gradients of the inputs before the geometry.
    """

    save: Callable[[Any, tuple, Any], None]
    backward: Callable[..., tuple]


# ---------------------------------------------------------------------------------------- linear kinds
def _save_linear(ctx: Any, inputs: tuple, output: Any) -> None:
    features, boxes, _, *ctx.geom = inputs
    ctx.save_for_backward(boxes, *features)


def _linear_forward_backward(ctx: Any, wanted: list[bool], grad: Tensor) -> tuple:
    boxes, *features = ctx.saved_tensors
    d_features: list = [None] * len(features)
    if wanted[0]:
        d_features = dispatch.call("linear_backward_features", grad, features, boxes, *ctx.geom)
    d_boxes = dispatch.call("linear_backward_boxes", grad, features, boxes, *ctx.geom) if wanted[1] else None
    return d_features, d_boxes, None


def _save_linear_backward(ctx: Any, inputs: tuple, output: Any) -> None:
    grad, features, boxes, *ctx.geom = inputs
    ctx.save_for_backward(grad, boxes, *features)


def _linear_backward_features_backward(ctx: Any, wanted: list[bool], d_gradients: list[Tensor | None]) -> tuple:
    grad, boxes, *features = ctx.saved_tensors
    v = _zeros_for_none(d_gradients, features)
    d_grad = dispatch.call("linear_forward", v, boxes, False, *ctx.geom) if wanted[0] else None
    d_boxes = dispatch.call("linear_backward_boxes", grad, v, boxes, *ctx.geom) if wanted[2] else None
    return d_grad, [None] * len(features), d_boxes


def _linear_backward_boxes_backward(ctx: Any, wanted: list[bool], v: Tensor) -> tuple:
    grad, boxes, *features = ctx.saved_tensors
    d_grad, d_boxes, *d_features = _through_reference(
        "linear_backward_boxes",
        [grad, boxes, *features],
        [wanted[0], wanted[2], *[wanted[1]] * len(features)],
        v,
        lambda f, t: f(t[0], t[2:], t[1], *ctx.geom),
    )
    return d_grad, d_features, d_boxes


# --------------------------------------------------------------------------------------- maximum kinds
def _save_max(ctx: Any, inputs: tuple, output: Any) -> None:
    features, boxes, _, *ctx.geom = inputs
    ctx.save_for_backward(output[1], boxes, *features)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _max_forward_backward(ctx: Any, wanted: list[bool], grad: Tensor | None, _: Tensor | None) -> tuple:
    argmax, boxes, *features = ctx.saved_tensors
    d_features: list = [None] * len(features)
    if grad is None:
        return d_features, None, None
    if wanted[0]:
        d_features = dispatch.call("max_backward_features", grad, argmax, features, boxes, *ctx.geom)
    return d_features, _max_d_boxes(ctx, wanted[1], grad, argmax, features, boxes), None


def _save_gather(ctx: Any, inputs: tuple, output: Any) -> None:
    features, argmax, boxes, *ctx.geom = inputs
    ctx.save_for_backward(argmax, boxes, *features)


def _max_gather_backward(ctx: Any, wanted: list[bool], grad: Tensor) -> tuple:
    argmax, boxes, *features = ctx.saved_tensors
    d_features: list = [None] * len(features)
    if wanted[0]:
        d_features = dispatch.call("max_backward_features", grad, argmax, features, boxes, *ctx.geom)
    return d_features, None, _max_d_boxes(ctx, wanted[2], grad, argmax, features, boxes)


def _save_max_backward(ctx: Any, inputs: tuple, output: Any) -> None:
    grad, argmax, features, boxes, *ctx.geom = inputs
    ctx.save_for_backward(grad, argmax, boxes, *features)


def _max_backward_features_backward(ctx: Any, wanted: list[bool], d_gradients: list[Tensor | None]) -> tuple:
    grad, argmax, boxes, *features = ctx.saved_tensors
    v = _zeros_for_none(d_gradients, features)
    d_grad = dispatch.call("max_gather", v, argmax, boxes, *ctx.geom) if wanted[0] else None
    return d_grad, None, [None] * len(features), _max_d_boxes(ctx, wanted[3], grad, argmax, v, boxes)


def _max_backward_boxes_backward(ctx: Any, wanted: list[bool], v: Tensor) -> tuple:
    grad, argmax, boxes, *features = ctx.saved_tensors
    d_grad, d_boxes, *d_features = _through_reference(
        "max_backward_boxes",
        [grad, boxes, *features],
        [wanted[0], wanted[3], *[wanted[2]] * len(features)],
        v,
        lambda f, t: f(t[0], argmax, t[2:], t[1], *ctx.geom),
    )
    return d_grad, None, d_features, d_boxes


def _max_d_boxes(
    ctx: Any, wanted: bool, grad: Tensor, argmax: Tensor, features: list[Tensor], boxes: Tensor
) -> Tensor | None:
    # Quantised bins do not follow the box: RoIPool's gradient with respect to it is zero almost everywhere.
    if not wanted or ctx.geom[1] == "pool":
        return None
    return dispatch.call("max_backward_boxes", grad, argmax, features, boxes, *ctx.geom)


# ---------------------------------------------------------------------------------------------- shared
def _zeros_for_none(gradients: list[Tensor | None], features: list[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(f) if g is None else g for g, f in zip(gradients, features, strict=True)]


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


RULES = {
    "linear_forward": Rule(_save_linear, _linear_forward_backward),
    "linear_backward_features": Rule(_save_linear_backward, _linear_backward_features_backward),
    "linear_backward_boxes": Rule(_save_linear_backward, _linear_backward_boxes_backward),
    "max_forward": Rule(_save_max, _max_forward_backward),
    "max_gather": Rule(_save_gather, _max_gather_backward),
    "max_backward_features": Rule(_save_max_backward, _max_backward_features_backward),
    "max_backward_boxes": Rule(_save_max_backward, _max_backward_boxes_backward),
}


def _save(rule: Rule, ctx: Any, inputs: tuple, output: Any) -> None:
    # Autograd runs in threads of its own, and after the block of ``use_backend``: what was forced is kept.
    ctx.backend = backends.forced()
    rule.save(ctx, inputs, output)


def _backward(rule: Rule, ctx: Any, wanted: list[bool], gradients: tuple) -> tuple:
    if torch.compiler.is_compiling() or ctx.backend == backends.forced():
        return rule.backward(ctx, wanted, *gradients)
    with backends.use_backend(ctx.backend):
        return rule.backward(ctx, wanted, *gradients)


# ---------------------------------------------------------------------------- of registered operators
def _register(name: str, rule: Rule) -> None:
    def save(ctx: Any, inputs: tuple, output: Any) -> None:
        _save(rule, ctx, inputs, output)

    def backward(ctx: Any, *gradients: Any) -> tuple:
        wanted = [any(w) if isinstance(w, list) else w for w in ctx.needs_input_grad]
        return *_backward(rule, ctx, wanted, gradients), *[None] * len(ctx.geom)

    torch.library.register_autograd(f"roi_ops::{name}", backward, setup_context=save, lib=ops.library)


for _name, _rule in RULES.items():
    _register(_name, _rule)


# ------------------------------------------------------------------------------------- of eager calls
def _function(name: str) -> Any:
    """An autograd function over the backend; its derivative records second derivatives as registered operators."""
    rule = RULES[name]

    def forward(ctx: Any, channels_last: bool, geometry: tuple, boxes: Tensor, *features: Tensor) -> Any:
        inputs = (list(features), boxes, channels_last, *geometry)
        output = dispatch.run(name, *inputs)
        _save(rule, ctx, inputs, output)
        return output

    def backward(ctx: Any, *gradients: Any) -> tuple:
        _, _, boxes_wanted, *features_wanted = ctx.needs_input_grad
        d_features, d_boxes, _ = _backward(rule, ctx, [any(features_wanted), boxes_wanted], gradients)
        return None, None, d_boxes, *d_features

    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type(name, (torch.autograd.Function,), methods)


_FUNCTIONS = {name: _function(name) for name in ("linear_forward", "max_forward")}


def pool(name: str, features: list[Tensor], boxes: Tensor, channels_last: bool, *geometry: Any) -> Any:
    """Call ``linear_forward`` or ``max_forward`` with its derivatives."""
    tensors = [boxes, *features]
    if not dispatch.is_plain(tensors):
        return ops.OPERATORS[name](features, boxes, channels_last, *geometry)
    if dispatch.is_recorded(tensors):
        return _FUNCTIONS[name].apply(channels_last, geometry, boxes, *features)
    return dispatch.run(name, features, boxes, channels_last, *geometry)

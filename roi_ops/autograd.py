"""Derivatives of the operators, said once for the registered operators and for eager calls.

First derivatives are operators themselves, so that compiled kernels serve them; second derivatives with respect to
features are operators again, those of box gradients come from autograd through the reference.

A rule is two functions: one saves what the other needs. ``torch.library`` calls them for the registered operators. For
eager calls a :class:`torch.autograd.Function` does, which takes less than half the time (see ``dispatch.py``); within
transforms of ``torch.func``, which refuse what ``torch.library`` makes, another one does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from roi_ops import backends, batching, dispatch, maps, ops, reference


class Rule(NamedTuple):
    """The derivative of one operator.

    Attributes:
        save: gets a context, the operator's inputs and its output, and keeps for ``backward`` what that needs: feature
            maps only where boxes require a gradient, for nothing else depends on their values. Inputs are tensors
            first and geometry last; ``ctx.geom`` keeps the latter, ``ctx.maps`` the form of the maps.
        backward: gets the context, for each input whether its gradient is wanted (that of a list of tensors is if any
            tensor's is), and the gradients of the outputs. Returns the gradients of the inputs before the geometry.
    """

    save: Callable[[Any, tuple, Any], None]
    backward: Callable[..., tuple]


# ---------------------------------------------------------------------------------------- linear kinds
def _save_linear(ctx: Any, inputs: tuple, output: Any) -> None:
    features, boxes, _, *ctx.geom = inputs
    ctx.maps = maps.describe(features)
    ctx.save_for_backward(boxes, *(features if boxes.requires_grad else ()))


def _linear_forward_backward(ctx: Any, wanted: list[bool], grad: Tensor) -> tuple:
    boxes, *features = ctx.saved_tensors
    d_features: list = [None] * len(ctx.maps[1])
    if wanted[0]:
        d_features = _call("linear_backward_features", grad, boxes, *ctx.maps, *ctx.geom)
    d_boxes = _call("linear_backward_boxes", grad, features, boxes, *ctx.geom) if wanted[1] else None
    return d_features, d_boxes, None


def _save_linear_backward_features(ctx: Any, inputs: tuple, output: Any) -> None:
    grad, boxes, _, _, *ctx.geom = inputs
    ctx.save_for_backward(boxes, *([grad] if boxes.requires_grad else ()))


def _linear_backward_features_backward(ctx: Any, wanted: list[bool], v: list[Tensor]) -> tuple:
    boxes, *grad = ctx.saved_tensors
    d_grad = _call("linear_forward", v, boxes, False, *ctx.geom) if wanted[0] else None
    d_boxes = _call("linear_backward_boxes", grad[0], v, boxes, *ctx.geom) if wanted[1] else None
    return d_grad, d_boxes, None, None


def _save_linear_backward_boxes(ctx: Any, inputs: tuple, output: Any) -> None:
    grad, features, boxes, *ctx.geom = inputs
    ctx.save_for_backward(grad, boxes, *features)


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
def _follows_boxes(boxes: Tensor, geom: list) -> bool:
    """Whether a gradient with respect to the boxes is wanted that is not zero.

    Quantised bins do not follow the box: RoIPool's gradient with respect to it is zero almost everywhere.
    """
    return boxes.requires_grad and geom[1] != "pool"


def _save_max(ctx: Any, inputs: tuple, output: Any) -> None:
    features, boxes, _, *ctx.geom = inputs
    ctx.maps = maps.describe(features)
    ctx.save_for_backward(output[1], boxes, *(features if _follows_boxes(boxes, ctx.geom) else ()))
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _max_forward_backward(ctx: Any, wanted: list[bool], grad: Tensor | None, _: Tensor | None) -> tuple:
    argmax, boxes, *features = ctx.saved_tensors
    d_features: list = [None] * len(ctx.maps[1])
    if grad is None:
        return d_features, None, None
    if wanted[0]:
        d_features = _call("max_backward_features", grad, argmax, boxes, *ctx.maps, *ctx.geom)
    return d_features, _max_d_boxes(ctx, wanted[1], grad, argmax, features, boxes), None


def _save_gather(ctx: Any, inputs: tuple, output: Any) -> None:
    features, argmax, boxes, *ctx.geom = inputs
    ctx.maps = maps.describe(features)
    ctx.save_for_backward(argmax, boxes, *(features if _follows_boxes(boxes, ctx.geom) else ()))


def _max_gather_backward(ctx: Any, wanted: list[bool], grad: Tensor) -> tuple:
    argmax, boxes, *features = ctx.saved_tensors
    d_features: list = [None] * len(ctx.maps[1])
    if wanted[0]:
        d_features = _call("max_backward_features", grad, argmax, boxes, *ctx.maps, *ctx.geom)
    return d_features, None, _max_d_boxes(ctx, wanted[2], grad, argmax, features, boxes)


def _save_max_backward_features(ctx: Any, inputs: tuple, output: Any) -> None:
    grad, argmax, boxes, _, _, *ctx.geom = inputs
    ctx.save_for_backward(argmax, boxes, *([grad] if _follows_boxes(boxes, ctx.geom) else ()))


def _max_backward_features_backward(ctx: Any, wanted: list[bool], v: list[Tensor]) -> tuple:
    argmax, boxes, *grad = ctx.saved_tensors
    d_grad = _call("max_gather", v, argmax, boxes, *ctx.geom) if wanted[0] else None
    return d_grad, None, _max_d_boxes(ctx, wanted[2], grad[0] if grad else None, argmax, v, boxes), None, None


def _save_max_backward_boxes(ctx: Any, inputs: tuple, output: Any) -> None:
    grad, argmax, features, boxes, *ctx.geom = inputs
    ctx.save_for_backward(grad, argmax, boxes, *features)


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
    ctx: Any, wanted: bool, grad: Tensor | None, argmax: Tensor, features: list[Tensor], boxes: Tensor
) -> Tensor | None:
    if not wanted or ctx.geom[1] == "pool":
        return None
    return _call("max_backward_boxes", grad, argmax, features, boxes, *ctx.geom)


# ---------------------------------------------------------------------------------------------- shared
def _through_reference(
    name: str, tensors: list[Tensor], wanted: list[bool], v: Tensor, call: Callable[..., Tensor]
) -> list[Tensor | None]:
    """Vector-Jacobian product of a reference function by autograd; keeps the graph if one is being built.

    Zero where nothing depends on a tensor: no box contributes.

    Raises:
        NotImplementedError: the call is being traced: what the reference does depends on values.
    """
    if dispatch.is_traced([v, *tensors]):
        raise NotImplementedError(f"the derivative of {name} cannot be compiled or traced; call it outside")
    positions = [i for i, w in enumerate(wanted) if w]

    def function(*chosen: Tensor) -> Tensor:
        inputs = list(tensors)
        for i, t in zip(positions, chosen, strict=True):
            inputs[i] = t
        # 0, from sums of nothing: without a box too the result has derivatives by all of them, in every order.
        return call(getattr(reference, name), inputs) + torch.stack([t[:0].sum() for t in chosen]).sum().expm1()

    gradients = _vjp(function, [tensors[i] for i in positions], v)
    found = dict(zip(positions, gradients, strict=True))
    return [found.get(i) for i in range(len(tensors))]


def _vjp(function: Callable[..., Tensor], inputs: list[Tensor], v: Tensor) -> tuple[Tensor, ...]:
    if dispatch.is_transformed():
        return torch.func.vjp(function, *inputs)[1](v)
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        leaves = [t.view_as(t) if create_graph and t.requires_grad else t.detach().requires_grad_() for t in inputs]
        return torch.autograd.grad(function(*leaves), leaves, v, create_graph=create_graph)


RULES = {
    "linear_forward": Rule(_save_linear, _linear_forward_backward),
    "linear_backward_features": Rule(_save_linear_backward_features, _linear_backward_features_backward),
    "linear_backward_boxes": Rule(_save_linear_backward_boxes, _linear_backward_boxes_backward),
    "max_forward": Rule(_save_max, _max_forward_backward),
    "max_gather": Rule(_save_gather, _max_gather_backward),
    "max_backward_features": Rule(_save_max_backward_features, _max_backward_features_backward),
    "max_backward_boxes": Rule(_save_max_backward_boxes, _max_backward_boxes_backward),
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


# ------------------------------------------------------------------------ within torch.func's transforms
def _transformable(name: str) -> Any:
    """An autograd function over the registered operator, in the form that ``torch.func`` asks for.

    It takes tensors only as arguments of their own: ``form`` says how many belong to each argument of the operator.
    """
    rule, operator = RULES[name], ops.OPERATORS[name]

    def forward(form: tuple, *flat: Any) -> Any:
        out = operator(*_nest(form, flat))
        return tuple(out) if isinstance(out, list) else out

    def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
        ctx.form, *flat = inputs
        _save(rule, ctx, tuple(_nest(ctx.form, flat)), output)

    def backward(ctx: Any, *gradients: Any) -> tuple:
        wanted = [any(w) if isinstance(w, list) else w for w in _nest(ctx.form, ctx.needs_input_grad[1:])]
        if name.endswith("backward_features"):
            gradients = (list(gradients),)
        found = _backward(rule, ctx, wanted, gradients)
        flat = [g for n, gs in zip(ctx.form, found, strict=False) for g in (gs if n else [gs])]
        return None, *flat, *[None] * len(ctx.geom)

    def vmap(info: Any, in_dims: tuple, form: tuple, *flat: Any) -> tuple[Any, int]:
        call = lambda *args: _apply_transformable(name, args)
        out = batching.batched(name, call, info.batch_size, _nest(form, in_dims[1:]), _nest(form, flat))
        return tuple(out) if isinstance(out, list) else out, 0

    methods = {f.__name__: staticmethod(f) for f in (forward, setup_context, backward, vmap)}
    return type(name, (torch.autograd.Function,), methods)


def _nest(form: tuple, flat: Sequence[Any]) -> list[Any]:
    items = iter(flat)
    return [[next(items) for _ in range(n)] if n else next(items) for n in form]


def _apply_transformable(name: str, args: Sequence[Any]) -> Any:
    are_tensors = [isinstance(a, list) and isinstance(a[0], Tensor) for a in args]
    form = tuple(len(a) if many else 0 for a, many in zip(args, are_tensors, strict=True))
    flat = [item for a, many in zip(args, are_tensors, strict=True) for item in (a if many else [a])]
    return _TRANSFORMABLE[name].apply(form, *flat)


_TRANSFORMABLE = {name: _transformable(name) for name in RULES}


# ------------------------------------------------------------------------------------------- the calls
def _call(name: str, *args: Any) -> Any:
    """Call an operator: the backend's function, or the operator in the form in which PyTorch has to see it."""
    tensors = [t for a in args for t in (a if isinstance(a, list) else (a,)) if isinstance(t, Tensor)]
    dispatch.refuse_forward_mode(tensors)
    if not dispatch.is_plain(tensors):
        return _call_seen(name, args)
    return ops.OPERATORS[name](*args) if dispatch.is_recorded(tensors) else dispatch.run(name, *args)


def _call_seen(name: str, args: Sequence[Any]) -> Any:
    return _apply_transformable(name, args) if dispatch.is_transformed() else ops.OPERATORS[name](*args)


def pool(name: str, features: list[Tensor], boxes: Tensor, channels_last: bool, *geometry: Any) -> Any:
    """Call ``linear_forward`` or ``max_forward`` with its derivatives."""
    tensors = [boxes, *features]
    if not dispatch.is_plain(tensors):
        return _call_seen(name, (features, boxes, channels_last, *geometry))
    if dispatch.is_recorded(tensors):
        return _FUNCTIONS[name].apply(channels_last, geometry, boxes, *features)
    return dispatch.run(name, features, boxes, channels_last, *geometry)

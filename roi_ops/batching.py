"""``torch.vmap`` of the operators: one call does the work of the whole batch.

Images are a dimension of every operator already. So the batch goes into it: maps [B, N, C, H, W] become
[B * N, C, H, W], boxes [B, K, 5] become [B * K, 5], and the image index of sample b grows by b * N.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from roi_ops import ops

ROIS_FIRST = ("grad", "argmax", "boxes")  # arguments whose first dimension is that of the RoIs


def batched(name: str, call: Callable[..., Any], size: int, in_dims: Sequence[Any], args: Sequence[Any]) -> Any:
    """Call an operator for every sample of a batch.

    Args:
        name: one of :data:`roi_ops.ops.OPERATORS`.
        call: takes the arguments of a single call and makes it.
        size: B, samples of the batch.
        in_dims: for each argument the dimension of the batch, None without one; a list for a list of tensors.
        args: the arguments.

    Returns:
        What the operator returns, with the batch as the first dimension of every tensor.
    """
    names = [argument.name for argument in ops.OPERATORS[name]._schema.arguments]
    values, dims = dict(zip(names, args, strict=True)), dict(zip(names, in_dims, strict=True))
    for rois_first in ROIS_FIRST:
        if rois_first in values:
            values[rois_first] = _merge(values[rois_first], dims[rois_first], size)
    if "sizes" in values:
        images, *rest = values["sizes"]
        values["sizes"] = [size * images, *rest]
        values["boxes"] = _shift(values["boxes"], size, images)
    elif any(dim is not None for dim in dims["features"]):
        values["features"] = [_merge(*pair, size) for pair in zip(values["features"], dims["features"], strict=True)]
        values["boxes"] = _shift(values["boxes"], size, values["features"][0].shape[0] // size)
    out = call(*values.values())
    return _split(out, size) if isinstance(out, Tensor) else [_split(t, size) for t in out]


def _merge(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    together = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return together.flatten(0, 1)


def _split(tensor: Tensor, size: int) -> Tensor:
    return tensor.unflatten(0, (size, tensor.shape[0] // size))


def _shift(boxes: Tensor, size: int, images: int) -> Tensor:
    """Boxes [B * K, 5] with the image indices of the merged batch; one out of range stays out of range."""
    index = boxes[:, 0].trunc()
    first = torch.arange(size, device=boxes.device).repeat_interleave(boxes.shape[0] // size) * images
    shift = torch.where(index < 0, 0, torch.where(index < images, first, size * images))
    return torch.cat([(index + shift)[:, None], boxes[:, 1:]], 1)


def _register(name: str) -> None:
    def rule(info: Any, in_dims: tuple, *args: Any) -> tuple[Any, int]:
        return batched(name, ops.OPERATORS[name], info.batch_size, in_dims, args), 0

    def of_gradients(*args: Any) -> Any:
        """For ``torch.autograd.grad(is_grads_batched=True)``, which has a batch of a kind of its own."""
        level = torch._C._vmapmode_increment_nesting() - 1
        torch._C._vmapmode_decrement_nesting()
        is_batched = torch._C._functorch.is_legacy_batchedtensor
        flat, form = tree_flatten(args)
        dims = [0 if isinstance(a, Tensor) and is_batched(a) else None for a in flat]
        flat = [
            a if dim is None else torch._remove_batch_dim(a, level, 1, 0) for a, dim in zip(flat, dims, strict=True)
        ]
        size = next(a.shape[0] for a, dim in zip(flat, dims, strict=True) if dim == 0)
        out = batched(name, ops.OPERATORS[name], size, tree_unflatten(dims, form), tree_unflatten(flat, form))
        return tree_map(lambda t: torch._add_batch_dim(t, 0, level), out)

    torch.library.register_vmap(f"roi_ops::{name}", rule, lib=ops.library)
    ops.library.impl(name, of_gradients, "Batched")


for _name in ops.OPERATORS:
    _register(_name)

"""Which way a call takes: straight to the backend, or through the operator registered with PyTorch.

PyTorch's dispatcher and the autograd of ``torch.library`` take several times as long as the backend's own Python. They
are needed where PyTorch has to see the operator: ``torch.compile``, ``torch.export``, ``make_fx``, ``torch.jit.trace``,
modes (fake tensors, ``__torch_dispatch__``, ``__torch_function__``), the transforms of ``torch.func``, and tensors that
are not plain memory (subclasses, lazily negated or zero tensors, devices other than CPU and CUDA).
"""

from __future__ import annotations

import functools
import operator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import has_torch_function

from roi_ops import backends, ops

# The dispatch keys of plain CPU and CUDA tensors, and those that every thread has. They are bits: a tensor or a thread
# with any other bit set asks PyTorch for something more than to run the operator.
_PLAIN_KEYS = functools.reduce(
    operator.or_,
    (torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, f"{prefix}{device}")).raw_repr()
     for prefix, device in (("", "CPU"), ("", "CUDA"), ("Autograd", "CPU"), ("Autograd", "CUDA"), ("Autocast", "CPU"),
                            ("Autocast", "CUDA"), ("ADInplaceOrView", ""), ("BackendSelect", ""))),
)  # fmt: skip


def is_plain(tensors: list[Tensor]) -> bool:
    """Whether nobody but the backend has to see a call with these tensors."""
    if torch.compiler.is_compiling() or has_torch_function(tensors):
        return False
    keys = torch._C._dispatch_tls_local_include_set().raw_repr()
    for tensor in tensors:
        keys |= torch._C._dispatch_keys(tensor).raw_repr()
    return not keys & ~_PLAIN_KEYS


def is_recorded(tensors: list[Tensor]) -> bool:
    """Whether autograd records a call with these tensors."""
    return (
        torch.is_grad_enabled()
        and any(tensor.requires_grad for tensor in tensors)
        # The body of another operator runs below autograd with gradients enabled.
        and not torch._C._dispatch_tls_is_dispatch_key_excluded(torch._C.DispatchKey.AutogradFunctionality)
    )


def run(name: str, *args: Any) -> Any:
    """Call a function of the backend for the tensors' device, without autograd.

    Args:
        name: one of :data:`roi_ops.ops.OPERATORS`.
        args: its arguments; the first is a tensor or a list of tensors.
    """
    first = args[0][0] if isinstance(args[0], list) else args[0]
    function = getattr(backends.select(first.device.type), name)
    if torch.autograd._profiler_enabled():
        with torch.profiler.record_function(f"roi_ops::{name}"):
            return function(*args)
    return function(*args)


def call(name: str, *args: Any) -> Any:
    """Call an operator: the backend's function, or the registered operator where PyTorch has to see it or record it."""
    tensors = [t for a in args for t in (a if isinstance(a, list) else (a,)) if isinstance(t, Tensor)]
    if is_plain(tensors) and not is_recorded(tensors):
        return run(name, *args)
    return ops.OPERATORS[name](*args)

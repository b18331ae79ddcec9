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
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad
from torch.overrides import has_torch_function

from roi_ops import backends

try:
    _keys_of_thread = torch._C._dispatch_tls_local_include_set
    _keys_of_tensor = torch._C._dispatch_keys
    _is_excluded = torch._C._dispatch_tls_is_dispatch_key_excluded
    _is_profiled = torch.autograd._profiler_enabled
    _AUTOGRAD = torch._C.DispatchKey.AutogradFunctionality
    _innermost_transform = torch._C._functorch.peek_interpreter_stack
    _FUNCTIONALIZE = torch._C._functorch.TransformType.Functionalize
    # The dispatch keys of plain CPU and CUDA tensors, and those that every thread has. They are bits: a tensor or a
    # thread with any other bit set asks PyTorch for something more than to run the operator.
    _PLAIN_KEYS = functools.reduce(
        operator.or_,
        (torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, name)).raw_repr()
         for name in ("CPU", "CUDA", "AutogradCPU", "AutogradCUDA", "AutocastCPU", "AutocastCUDA", "ADInplaceOrView",
                      "BackendSelect")),
    )  # fmt: skip
    HAS_SHORTCUT = True
except AttributeError:
    # These names are private to PyTorch. In a version without one of them every call takes the registered operator:
    # slower, with the same results.
    HAS_SHORTCUT = False


def is_plain(tensors: list[Tensor]) -> bool:
    """Whether nobody but the backend has to see a call with these tensors."""
    if not HAS_SHORTCUT or torch.compiler.is_compiling() or has_torch_function(tensors):
        return False
    keys = _keys_of_thread().raw_repr()
    for tensor in tensors:
        keys |= _keys_of_tensor(tensor).raw_repr()
    return not keys & ~_PLAIN_KEYS


def is_transformed() -> bool:
    """Whether ``torch.vmap`` or a derivative of ``torch.func`` is at work."""
    if not HAS_SHORTCUT or torch.compiler.is_compiling():
        return False
    transform = _innermost_transform()
    return transform is not None and transform.key() != _FUNCTIONALIZE


def is_traced(tensors: list[Tensor]) -> bool:
    """Whether a graph is being made of a call with these tensors, which must not depend on their values."""
    from torch._subclasses.functional_tensor import FunctionalTensor
    from torch.fx.experimental.proxy_tensor import get_proxy_mode

    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or get_proxy_mode() is not None
        or any(isinstance(t, (FakeTensor, FunctionalTensor)) for t in tensors)
    )


def refuse_forward_mode(tensors: list[Tensor]) -> None:
    """Raise for tensors with a forward-mode tangent: a custom operator would drop it without a word.

    Raises:
        NotImplementedError: a tensor has one.
    """
    if torch.compiler.is_compiling() or getattr(forward_ad, "_current_level", 0) < 0:  # no level: no tangents
        return
    if any(forward_ad.unpack_dual(t).tangent is not None for t in tensors):
        raise NotImplementedError(
            "roi_ops has no forward-mode derivatives (jvp); use reverse mode: backward() or torch.autograd.grad"
        )


def is_recorded(tensors: list[Tensor]) -> bool:
    """Whether autograd records a call with these tensors, which are plain."""
    return (
        torch.is_grad_enabled()
        and any(tensor.requires_grad for tensor in tensors)
        # The body of another operator runs below autograd with gradients enabled.
        and not _is_excluded(_AUTOGRAD)
    )


def run(name: str, *args: Any) -> Any:
    """Call a function of the backend for the tensors' device, without autograd; the tensors are plain.

    Args:
        name: one of :data:`roi_ops.ops.OPERATORS`.
        args: its arguments; the first is a tensor or a list of tensors.
    """
    first = args[0][0] if isinstance(args[0], list) else args[0]
    function = getattr(backends.select(first.device.type), name)
    if _is_profiled():
        with torch.profiler.record_function(f"roi_ops::{name}"):
            return function(*args)
    return function(*args)

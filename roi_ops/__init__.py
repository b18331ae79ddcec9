"""Multi-scale RoI operators for PyTorch: exact, deterministic, differentiable, drop-in for torchvision's."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from roi_ops import scripting  # noqa: F401  (gives the functions their forms for torch.jit.script)
from roi_ops.backends import instruction_set, use_backend
from roi_ops.functional import (
    multiscale_prroi_pool,
    multiscale_roi_align,
    multiscale_roi_pool,
    prroi_pool,
    roi_align,
    roi_pool,
)

if TYPE_CHECKING:
    from roi_ops import onnx as onnx
    from roi_ops.modules import (
        MultiScalePrRoIPool,
        MultiScaleRoIAlign,
        MultiScaleRoIPool,
        PrRoIPool,
        RoIAlign,
        RoIPool,
        make_pooler,
    )
    from roi_ops.retrofit import replace_roi_pooling

__all__ = [
    "MultiScalePrRoIPool",
    "MultiScaleRoIAlign",
    "MultiScaleRoIPool",
    "PrRoIPool",
    "RoIAlign",
    "RoIPool",
    "instruction_set",
    "make_pooler",
    "multiscale_prroi_pool",
    "multiscale_roi_align",
    "multiscale_roi_pool",
    "prroi_pool",
    "replace_roi_pooling",
    "roi_align",
    "roi_pool",
    "use_backend",
]


def __getattr__(name: str) -> Any:
    # The modules subclass torchvision's, whose import takes over a second: only who uses them waits for it.
    if name == "onnx":  # a module, not a name of __all__
        return importlib.import_module("roi_ops.onnx")
    if name in __all__:
        module = "roi_ops.retrofit" if name == "replace_roi_pooling" else "roi_ops.modules"
        return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'roi_ops' has no attribute '{name}'")

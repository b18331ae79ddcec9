"""Multi-scale RoI operators for PyTorch: exact, deterministic, differentiable, drop-in for torchvision's."""

from roi_ops.backends import use_backend
from roi_ops.functional import (
    multiscale_prroi_pool,
    multiscale_roi_align,
    multiscale_roi_pool,
    prroi_pool,
    roi_align,
    roi_pool,
)
from roi_ops.modules import (
    MultiScalePrRoIPool,
    MultiScaleRoIAlign,
    MultiScaleRoIPool,
    PrRoIPool,
    RoIAlign,
    RoIPool,
    make_pooler,
    replace_roi_pooling,
)

__all__ = [
    "MultiScalePrRoIPool",
    "MultiScaleRoIAlign",
    "MultiScaleRoIPool",
    "PrRoIPool",
    "RoIAlign",
    "RoIPool",
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

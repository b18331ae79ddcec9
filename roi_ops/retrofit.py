"""The exchange of the poolers inside a detector that is there already."""

from __future__ import annotations

import torch
import torchvision.ops
from torch import nn

from roi_ops.modules import make_pooler


def replace_roi_pooling(model: nn.Module, kind: str = "align", *, sampling_ratio: int | None = None) -> nn.Module:
    """Exchange the RoI poolers of a torchvision Faster, Mask or Keypoint R-CNN, in place; weights are kept.

    Nothing is run. Each pooler keeps its place, its hooks and its names of feature maps; names of maps that the
    backbone does not give are passed over, as torchvision does.

    Args:
        model: has torchvision's ``MultiScaleRoIAlign`` somewhere in it: a detector, or what wraps one
            (``DataParallel``, a compiled module, a ``LightningModule``). Any dtype and device, ``meta`` too.
        kind: one of :data:`roi_ops.modules.KINDS`; "align" gives the results of torchvision's own pooler.
        sampling_ratio: None keeps each pooler's.

    Returns:
        ``model``.

    Raises:
        TypeError: the model has no poolers of torchvision's kind, or is scripted.
    """
    poolers = [module for module in model.modules() if isinstance(module, torchvision.ops.MultiScaleRoIAlign)]
    if not poolers:
        hint = "; replace them before torch.jit.script" if isinstance(model, torch.jit.ScriptModule) else ""
        raise TypeError(f"{type(model).__name__} has no torchvision.ops.MultiScaleRoIAlign in it{hint}")
    for old in poolers:
        ratio = old.sampling_ratio if sampling_ratio is None else sampling_ratio
        new = make_pooler(
            kind,
            old.featmap_names,
            old.output_size,
            ratio,
            canonical_scale=old.canonical_scale,
            canonical_level=old.canonical_level,
            spatial_scales=getattr(old, "spatial_scales", None),
        )
        new.sampling_ratio = ratio  # kept where the kind has no use for it, as the next replacement may have
        new.strict = getattr(old, "strict", False)
        # The pooler becomes the new one instead of making room for it: whoever holds it (several heads, a compiled
        # module, a hook) holds the new one then.
        old.__class__ = type(new)
        kept = vars(nn.Module())
        vars(old).update({name: value for name, value in vars(new).items() if name not in kept})
    return model

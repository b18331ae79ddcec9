"""The operators as modules, and the exchange of the poolers inside a torchvision R-CNN.

``torchvision.models.detection.FasterRCNN`` accepts only instances of torchvision's ``MultiScaleRoIAlign`` as
RoI poolers: so the multi-scale modules here are subclasses of it. They share its call convention and its constructor,
which keeps ``output_size``, ``sampling_ratio`` and the names of the maps, and those of its arguments that they have.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torchvision.ops
from torch import Tensor, nn

from roi_ops import functional
from roi_ops.levels import infer_scales


class RoIAlign(nn.Module):
    """Module form of :func:`roi_ops.roi_align`."""

    def __init__(
        self,
        output_size: int | Sequence[int],
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = False,
        *,
        mode: str = "avg",
    ):
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned
        self.mode = mode

    def forward(self, input: Tensor, rois: functional.Boxes) -> Tensor:
        """Tensor[N, C, H, W] and boxes to Tensor[K, C, output_h, output_w]."""
        return functional.roi_align(
            input, rois, self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned, mode=self.mode
        )

    def extra_repr(self) -> str:
        """The arguments, for ``print``."""
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}, aligned={self.aligned}, mode={self.mode!r}"
        )


class RoIPool(nn.Module):
    """Module form of :func:`roi_ops.roi_pool`."""

    def __init__(self, output_size: int | Sequence[int], spatial_scale: float):
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale

    def forward(self, input: Tensor, rois: functional.Boxes) -> Tensor:
        """Tensor[N, C, H, W] and boxes to Tensor[K, C, output_h, output_w]."""
        return functional.roi_pool(input, rois, self.output_size, self.spatial_scale)

    def extra_repr(self) -> str:
        """The arguments, for ``print``."""
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"


class PrRoIPool(RoIPool):
    """Module form of :func:`roi_ops.prroi_pool`."""

    def forward(self, input: Tensor, rois: functional.Boxes) -> Tensor:
        """Tensor[N, C, H, W] and boxes to Tensor[K, C, output_h, output_w]."""
        return functional.prroi_pool(input, rois, self.output_size, self.spatial_scale)


class _MultiScalePooler(torchvision.ops.MultiScaleRoIAlign):
    """What the multi-scale modules share: the choice of maps and their scales."""

    def __init__(
        self,
        featmap_names: Sequence[str],
        output_size: int | Sequence[int],
        sampling_ratio: int,
        canonical_scale: int,
        canonical_level: int,
        spatial_scales: Sequence[float] | None,
    ):
        size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
        super().__init__(
            list(featmap_names), size, sampling_ratio, canonical_scale=canonical_scale, canonical_level=canonical_level
        )
        if spatial_scales is not None and len(spatial_scales) != len(self.featmap_names):
            raise ValueError(f"{len(self.featmap_names)} feature map names but {len(spatial_scales)} spatial scales")
        self.spatial_scales = None if spatial_scales is None else [float(scale) for scale in spatial_scales]

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Pool every box from the feature map that fits its size.

        Args:
            x: Tensor[N, C, H_l, W_l] by name; maps that are not in ``featmap_names`` are ignored.
            boxes: N Tensor[L_i, 4] (x1, y1, x2, y2), image pixels.
            image_shapes: N (height, width) of the images before batching; only looked at where
                ``spatial_scales`` were not given.

        Returns:
            Tensor[sum of L_i, C, output_h, output_w].

        Raises:
            ValueError: a feature map is missing; the message lists those there are.
        """
        missing = [name for name in self.featmap_names if name not in x]
        if missing:
            raise ValueError(f"no feature map named {missing}; there are {list(x)}")
        features = [x[name] for name in self.featmap_names]
        scales = self.spatial_scales
        if scales is None:
            scales = infer_scales([tuple(f.shape[-2:]) for f in features], image_shapes)  # type: ignore[misc]
        return self.pool(features, boxes, scales)

    def pool(self, features: list[Tensor], boxes: list[Tensor], scales: list[float]) -> Tensor:
        """The operator itself; see the subclasses."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(featmap_names={self.featmap_names}, output_size={self.output_size}"
            f"{self.extra_repr()})"
        )


class MultiScaleRoIAlign(_MultiScalePooler):
    """RoIAlign on a feature pyramid; drop-in for ``torchvision.ops.MultiScaleRoIAlign``.

    Args:
        featmap_names: names of the feature maps, finest first.
        output_size: bins, an int or (height, width).
        sampling_ratio: samples a bin and axis; <= 0: adaptive.
        canonical_scale, canonical_level: a box of this side (image pixels) is pooled from the map of stride
            2 ** canonical_level (Feature Pyramid Networks, equation 1).
        aligned: shift boxes by half a pixel and do not widen them to a pixel.
        mode: "avg" or "max" of a bin's samples.
        spatial_scales: map size over image size of each map; None: inferred in every call.
    """

    def __init__(
        self,
        featmap_names: Sequence[str],
        output_size: int | Sequence[int],
        sampling_ratio: int,
        *,
        canonical_scale: int = 224,
        canonical_level: int = 4,
        aligned: bool = False,
        mode: str = "avg",
        spatial_scales: Sequence[float] | None = None,
    ):
        super().__init__(featmap_names, output_size, sampling_ratio, canonical_scale, canonical_level, spatial_scales)
        self.aligned = aligned
        self.mode = mode

    def pool(self, features: list[Tensor], boxes: list[Tensor], scales: list[float]) -> Tensor:
        """See :func:`roi_ops.multiscale_roi_align`."""
        return functional.multiscale_roi_align(
            features,
            boxes,
            self.output_size,
            scales,
            self.sampling_ratio,
            self.aligned,
            canonical_scale=self.canonical_scale,
            canonical_level=self.canonical_level,
            mode=self.mode,
        )

    def extra_repr(self) -> str:
        """The arguments that are RoIAlign's own."""
        return f", sampling_ratio={self.sampling_ratio}, aligned={self.aligned}, mode={self.mode!r}"


class MultiScaleRoIPool(_MultiScalePooler):
    """RoIPool on a feature pyramid; its arguments are those of :class:`MultiScaleRoIAlign` that it has."""

    operator = staticmethod(functional.multiscale_roi_pool)

    def __init__(
        self,
        featmap_names: Sequence[str],
        output_size: int | Sequence[int],
        *,
        canonical_scale: int = 224,
        canonical_level: int = 4,
        spatial_scales: Sequence[float] | None = None,
    ):
        super().__init__(featmap_names, output_size, 0, canonical_scale, canonical_level, spatial_scales)

    def pool(self, features: list[Tensor], boxes: list[Tensor], scales: list[float]) -> Tensor:
        """See :func:`roi_ops.multiscale_roi_pool`."""
        return self.operator(
            features,
            boxes,
            self.output_size,
            scales,
            canonical_scale=self.canonical_scale,
            canonical_level=self.canonical_level,
        )


class MultiScalePrRoIPool(MultiScaleRoIPool):
    """PrRoIPool on a feature pyramid; its arguments are those of :class:`MultiScaleRoIAlign` that it has."""

    operator = staticmethod(functional.multiscale_prroi_pool)


KINDS = ("align", "align_aligned", "align_max", "pool", "prroi")


def make_pooler(
    kind: str,
    featmap_names: Sequence[str],
    output_size: int | Sequence[int],
    sampling_ratio: int = 2,
    **levels: Any,
) -> torchvision.ops.MultiScaleRoIAlign:
    """The multi-scale module of this ``kind``, one of :data:`KINDS`.

    ``levels``: ``canonical_scale``, ``canonical_level`` and ``spatial_scales`` of :class:`MultiScaleRoIAlign`.
    """
    if kind not in KINDS:
        raise ValueError(f"kind='{kind}': must be one of {', '.join(KINDS)}")
    if kind in ("pool", "prroi"):
        cls = MultiScaleRoIPool if kind == "pool" else MultiScalePrRoIPool
        return cls(featmap_names, output_size, **levels)
    levels |= {"aligned": kind == "align_aligned", "mode": "max" if kind == "align_max" else "avg"}
    return MultiScaleRoIAlign(featmap_names, output_size, sampling_ratio, **levels)


def replace_roi_pooling(model: nn.Module, kind: str = "align", *, sampling_ratio: int | None = None) -> nn.Module:
    """Exchange the RoI poolers of a torchvision Faster, Mask or Keypoint R-CNN, in place; weights are kept.

    Args:
        model: has ``backbone`` and ``roi_heads`` as torchvision's ``GeneralizedRCNN``.
        kind: one of :data:`KINDS`; "align" gives the results of torchvision's own pooler.
        sampling_ratio: None keeps each pooler's.

    Returns:
        ``model``.

    Raises:
        TypeError: the model has no poolers of torchvision's kind.
    """
    heads = getattr(model, "roi_heads", None)
    poolers = {
        name: module
        for name, module in (heads.named_children() if isinstance(heads, nn.Module) else ())
        if isinstance(module, torchvision.ops.MultiScaleRoIAlign)
    }
    if not isinstance(heads, nn.Module) or not poolers:
        raise TypeError(f"{type(model).__name__} has no roi_heads with torchvision's MultiScaleRoIAlign in them")
    maps = _feature_names(model.backbone)  # type: ignore[arg-type]
    for name, old in poolers.items():
        new = make_pooler(
            kind,
            # torchvision passes over names that the backbone does not give: its MobileNetV3 models have some.
            [n for n in maps if n in old.featmap_names],
            old.output_size,
            old.sampling_ratio if sampling_ratio is None else sampling_ratio,
            canonical_scale=old.canonical_scale,
            canonical_level=old.canonical_level,
            spatial_scales=getattr(old, "spatial_scales", None),
        )
        new.sampling_ratio = old.sampling_ratio if sampling_ratio is None else sampling_ratio  # also where unused
        setattr(heads, name, new.train(old.training))
    return model


def _feature_names(backbone: nn.Module) -> list[str]:
    """Names of the maps a backbone gives, found on the meta device: nothing is computed or changed."""
    shadow = copy.deepcopy(backbone).eval().to("meta")
    with torch.no_grad():
        maps = shadow(torch.empty(1, 3, 64, 64, device="meta"))
    return ["0"] if isinstance(maps, Tensor) else list(maps)

"""The operators as modules.

``torchvision.models.detection.FasterRCNN`` accepts only instances of torchvision's ``MultiScaleRoIAlign`` as
RoI poolers: so the multi-scale modules here are subclasses of it. They share its call convention and its constructor,
which keeps ``output_size``, ``sampling_ratio`` and the names of the maps, and those of its arguments that they have.

``torch.jit.script`` compiles every ``forward`` here, and what it calls: so their annotations and their Python are those
that it knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torchvision.ops
from torch import Tensor, nn

from roi_ops import functional, fx
from roi_ops.levels import map_scales


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

    def forward(self, input: Tensor, rois: Tensor | list[Tensor]) -> Tensor:
        """Tensor[N, C, H, W] and boxes to Tensor[K, C, output_h, output_w]."""
        scale = float(self.spatial_scale)
        return functional.roi_align(
            input, rois, self.output_size, scale, self.sampling_ratio, self.aligned, mode=self.mode
        )

    def extra_repr(self) -> str:
        """The arguments, for ``print``; what torchvision's module does not have only where it was given."""
        text = (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"
        )
        return text + _given(mode=(self.mode, "avg"))


class RoIPool(nn.Module):
    """Module form of :func:`roi_ops.roi_pool`."""

    def __init__(self, output_size: int | Sequence[int], spatial_scale: float):
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale

    def forward(self, input: Tensor, rois: Tensor | list[Tensor]) -> Tensor:
        """Tensor[N, C, H, W] and boxes to Tensor[K, C, output_h, output_w]."""
        return functional.roi_pool(input, rois, self.output_size, float(self.spatial_scale))

    def extra_repr(self) -> str:
        """The arguments, for ``print``."""
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"


class PrRoIPool(RoIPool):
    """Module form of :func:`roi_ops.prroi_pool`."""

    def forward(self, input: Tensor, rois: Tensor | list[Tensor]) -> Tensor:
        """Tensor[N, C, H, W] and boxes to Tensor[K, C, output_h, output_w]."""
        return functional.prroi_pool(input, rois, self.output_size, float(self.spatial_scale))


@fx.node
def select_maps(x: dict[str, Tensor], names: list[str], strict: bool) -> list[Tensor]:
    """The maps of ``x`` that are named, in the order of the names; if not ``strict``, those that are there, in its own.

    Raises:
        ValueError: a map is missing, or all are; the message lists those there are.
    """
    missing: list[str] = []
    for name in names:
        if name not in x:
            missing.append(name)
    if len(missing) > 0 and (strict or len(missing) == len(names)):
        raise ValueError(f"no feature map named {missing}; there are {list(x.keys())}")
    maps: list[Tensor] = []
    for name in names if strict else list(x.keys()):
        if name in names:
            maps.append(x[name])
    return maps


def _given(**arguments: tuple[Any, Any]) -> str:
    """Text of the arguments, each with its default, that have another value than that."""
    return "".join(f", {name}={value!r}" for name, (value, default) in arguments.items() if value != default)


class _MultiScalePooler(torchvision.ops.MultiScaleRoIAlign):
    """What the multi-scale modules share: the choice of maps and their scales.

    Attributes:
        strict: whether a named map that is not there is an error. :func:`roi_ops.replace_roi_pooling` sets it to False:
            torchvision passes over such names, and its MobileNetV3 detectors have some.
    """

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
        self.strict = True

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
        features = select_maps(x, self.featmap_names, self.strict)
        if self.spatial_scales is None:
            return self.pool(features, boxes, map_scales(features, image_shapes))
        return self.pool(features, boxes, self.spatial_scales)

    def pool(self, features: list[Tensor], boxes: list[Tensor], scales: list[float]) -> Tensor:
        """The operator itself; see the subclasses."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(featmap_names={self.featmap_names}, output_size={self.output_size}"
            f"{self.extra_repr()})"
        )

    def extra_repr(self) -> str:
        """The arguments that follow the names and the size, with a comma before each."""
        return _given(
            canonical_scale=(self.canonical_scale, 224),
            canonical_level=(self.canonical_level, 4),
            spatial_scales=(self.spatial_scales, None),
            strict=(self.strict, True),
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
            canonical_scale=float(self.canonical_scale),
            canonical_level=float(self.canonical_level),
            mode=self.mode,
        )

    def extra_repr(self) -> str:
        """See :class:`MultiScaleRoIPool`; the rest is torchvision's text."""
        given = _given(aligned=(self.aligned, False), mode=(self.mode, "avg"))
        return f", sampling_ratio={self.sampling_ratio}{given}{super().extra_repr()}"


class MultiScaleRoIPool(_MultiScalePooler):
    """RoIPool on a feature pyramid; its arguments are those of :class:`MultiScaleRoIAlign` that it has."""

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
        return functional.multiscale_roi_pool(
            features,
            boxes,
            self.output_size,
            scales,
            canonical_scale=float(self.canonical_scale),
            canonical_level=float(self.canonical_level),
        )


class MultiScalePrRoIPool(MultiScaleRoIPool):
    """PrRoIPool on a feature pyramid; its arguments are those of :class:`MultiScaleRoIAlign` that it has."""

    def pool(self, features: list[Tensor], boxes: list[Tensor], scales: list[float]) -> Tensor:
        """See :func:`roi_ops.multiscale_prroi_pool`."""
        return functional.multiscale_prroi_pool(
            features,
            boxes,
            self.output_size,
            scales,
            canonical_scale=float(self.canonical_scale),
            canonical_level=float(self.canonical_level),
        )


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

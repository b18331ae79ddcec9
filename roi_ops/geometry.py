"""What an operator call computes, apart from its tensors: the arguments every backend function ends with."""

from __future__ import annotations

from typing import NamedTuple

LINEAR_KINDS = ("align", "align_aligned", "prroi")
MAX_KINDS = ("pool", "align_max", "align_aligned_max")
# Their numbers in the kernels: enum Kind of roi_ops/include/roi_axis.h.
KIND_NUMBERS = {kind: number for number, kind in enumerate((*LINEAR_KINDS, *MAX_KINDS))}

# Adaptive sampling takes one sample a pixel, but no more than this many a bin and axis: beyond it (boxes
# of 229,000 pixels at 7 x 7 bins) samples lie further apart. Keeps a bin's sample number within int32.
MAX_SAMPLES = 32768


class Geometry(NamedTuple):
    """Geometry of one pooling call. Passed unpacked through ``torch.library``, whose schemas know no structs.

    Attributes:
        scales: map size over image size, one for each feature map, finest first.
        kind: one of :data:`LINEAR_KINDS` or :data:`MAX_KINDS`.
        pooled_h, pooled_w: bins of the output.
        sampling_ratio: samples a bin and axis; <= 0: adaptive, ``ceil(extent / bins)``.
        k_min, k_max: exponents of the finest and coarsest map used: scale = 2 ** -k.
        canonical_scale: side in image pixels of a box that is pooled from ``canonical_level``.
        canonical_level: the k of that map.
    """

    scales: list[float]
    kind: str
    pooled_h: int
    pooled_w: int
    sampling_ratio: int
    k_min: int
    k_max: int
    canonical_scale: float
    canonical_level: float

    @property
    def aligned(self) -> bool:
        """Whether boxes are shifted by half a pixel and keep sizes below one pixel."""
        return self.kind.startswith("align_aligned")

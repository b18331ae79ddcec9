"""Boxes and feature maps that the operator tests share."""

import torch
from hypothesis import strategies as st

# Forms of boxes in a map of side 1: named so that a failing example says what it was.
FORMS = ("inside", "partly outside", "outside", "whole map", "sub-pixel", "on the border", "huge", "inverted", "point")


def box(form: str, size: tuple[float, float], generator: torch.Generator) -> torch.Tensor:
    """One box (x1, y1, x2, y2) of the given form on a map of ``size`` (height, width) pixels, float64."""
    h, w = size
    limits = torch.tensor([w, h, w, h], dtype=torch.float64)
    a, b = torch.rand(2, 2, generator=generator, dtype=torch.float64).sort(0).values
    inside = torch.cat([a, b]) * limits
    if form == "inside":
        return inside
    if form == "partly outside":
        return inside * 2 - limits / 2
    if form == "outside":
        return inside + limits * 1.5
    if form == "whole map":
        return torch.tensor([0, 0, w, h], dtype=torch.float64)
    if form == "sub-pixel":
        return torch.cat([a * limits[:2], a * limits[:2] + b * 0.3])
    if form == "on the border":  # samples at exactly -1 and at exactly H and W
        return torch.tensor([-2, -2, w + 2, h + 2], dtype=torch.float64)
    if form == "huge":
        return (inside - limits / 2) * 40
    if form == "inverted":
        return inside[[2, 3, 0, 1]]
    return torch.cat([a, a]) * limits


def rois(forms: list[str], size: tuple[float, float], images: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    """Boxes of the given forms in image coordinates of a map of ``scale``, Tensor[K, 5] float64."""
    generator = torch.Generator().manual_seed(seed)
    rows = [box(form, size, generator) / scale for form in forms]
    index = torch.randint(images, (len(rows), 1), generator=generator).double()
    return torch.cat([index, torch.stack(rows)], 1) if rows else torch.zeros(0, 5, dtype=torch.float64)


def features(shape: tuple[int, ...], seed: int, channels_last: bool = False) -> torch.Tensor:
    """Random map in float64."""
    f = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return f.to(memory_format=torch.channels_last) if channels_last else f


forms = st.lists(st.sampled_from(FORMS), min_size=1, max_size=6)
sizes = st.tuples(st.integers(1, 14), st.integers(1, 14))
outputs = st.tuples(st.integers(1, 5), st.integers(1, 5))
seeds = st.integers(0, 2**31)
scales = st.sampled_from([1.0, 0.5, 0.25, 0.3])


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference, relative to the largest value of ``b`` or 1."""
    if not a.numel():
        return 0.0
    return ((a - b).abs().max() / b.abs().max().clamp(min=1)).item()

"""Texts in pictures: shortened, and placed where they can be read."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

Rectangle = tuple[float, float, float, float]


def shortened(text: str, limit: int = 24) -> str:
    """``text`` in one line of at most ``limit`` characters; the middle is left out, as names differ at their ends."""
    text = " ".join(text.split())
    end = (limit - 1) // 2
    return text if len(text) <= limit else f"{text[: limit - 1 - end]}…{text[-end:]}"


def least_covered(
    xs: Sequence[float], ys: Sequence[float], size: tuple[float, float], frame: Sequence[float], taken: list[Rectangle]
) -> tuple[float, float]:
    """The position (x, y) where a label covers least of the labels that are already there.

    Args:
        xs, ys: lowest coordinates that the label may have, best ones first; y counts more than x.
        size: width and height of the label.
        frame: x0, y0, x1, y1 of the picture, which the label is moved into.
        taken: rectangles of the other labels; that of this one is added.
    """
    w, h = size
    positions = [
        (min(max(x, frame[0]), max(frame[2] - w, frame[0])), min(max(y, frame[1]), max(frame[3] - h, frame[1])))
        for y, x in itertools.product(ys, xs)
    ]
    covered = [sum(overlap((x, y, x + w, y + h), other) for other in taken) for x, y in positions]
    x, y = positions[covered.index(min(covered))]
    taken.append((x, y, x + w, y + h))
    return x, y


def overlap(a: Rectangle, b: Rectangle) -> float:
    """Area that two rectangles (x0, y0, x1, y1) share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))

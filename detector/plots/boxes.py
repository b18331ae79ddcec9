"""Detections drawn into the pixels of an image or a video frame."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from detector.plots.figure import color_of, contrast
from detector.plots.fonts import OWN, font_for
from detector.plots.labels import Rectangle, least_covered

PAD = 2  # pixels around a label's letters


def draw_boxes(
    pixels: np.ndarray, boxes: Sequence[Sequence[float]], labels: Sequence[int], texts: Sequence[str]
) -> Image.Image:
    """A copy of an image with its detections; widths of lines and letters are in proportion to the image.

    Args:
        pixels: uint8 [H, W, 3].
        boxes: x1, y1, x2, y2 in pixels; the most important boxes come first, and are drawn on top.
        labels: class of each box, 1..K, which gives its colour.
        texts: what to write at each box.
    """
    image = Image.fromarray(np.ascontiguousarray(pixels))
    canvas = ImageDraw.Draw(image)
    line = max(1, round(max(image.size) / 400))
    size = max(9, round(max(image.size) / 55))
    for box, label in reversed(list(zip(boxes, labels, strict=True))):
        x1, y1, x2, y2 = box
        canvas.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=color_of(label - 1), width=line)
    taken: list[Rectangle] = []
    for (x1, y1, x2, y2), label, text in zip(boxes, labels, texts, strict=True):
        font = letters(size, font_for(text) or OWN)
        height = sum(font.getmetrics()) + 2 * PAD
        width = font.getlength(text) + 2 * PAD
        left, right = x1, x2 - width + 1
        ys = (y1 - height, y1, y2 + 1, y2 - height)
        x, y = least_covered((left, right), ys, (width, height), (0, 0, *image.size), taken)
        color = color_of(label - 1)
        canvas.rectangle((x, y, x + width - 1, y + height - 1), fill=color)
        canvas.text((x + PAD, y + PAD), text, font=font, fill=contrast(color))
    return image


@lru_cache(maxsize=8)
def letters(size: int, file: str) -> ImageFont.FreeTypeFont:
    """The font in ``file`` at ``size`` pixels."""
    return ImageFont.truetype(file, size)

"""Run-length encodings as COCO files have them, checked before pycocotools measures them."""

from __future__ import annotations

from typing import Any

from pycocotools import mask


def measure_mask(encoding: Any) -> tuple[list[float], float] | None:
    """[left, top, width, height] around a mask, and its pixels; None if the encoding is damaged.

    Args:
        encoding: ``{"size": [height, width], "counts": ...}``, compressed or not.
    """
    size = encoding.get("size") if isinstance(encoding, dict) else None
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        return None
    counts = checked_runs(encoding.get("counts"), size[0] * size[1])
    if counts is None or size[0] * size[1] >= 2**32:  # pycocotools counts pixels in 32 bits
        return None
    # Not from the text: of a damaged one pycocotools reads and writes beyond the end.
    runs = mask.frPyObjects({"size": size, "counts": counts}, *size)
    left, top, width, height = (float(side) for side in mask.toBbox(runs))
    area = float(mask.area(runs))
    whole = 0 <= left <= left + width <= size[1] and 0 <= top <= top + height <= size[0] and area <= width * height
    return ([left, top, width, height], area) if whole else None


def checked_runs(counts: Any, pixels: int) -> list[int] | None:
    """The runs of an encoding of ``pixels`` pixels; None if they are damaged.

    Args:
        counts: the value of the key ``counts``: a list, or a text if it is compressed.
        pixels: height times width.
    """
    runs = decompressed(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(n) is int and 0 <= n <= pixels for n in runs):
        return None
    return runs if sum(runs) == pixels else None


def decompressed(text: str) -> list[int] | None:
    """The runs of a compressed encoding; None if it is damaged, where pycocotools would read beyond its end.

    Five bits a character, low ones first, the sixth says that there are more; from the fourth run on the difference
    to the one before the last (``rleFrString`` in pycocotools' ``maskApi.c``).
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    return None if shift else counts

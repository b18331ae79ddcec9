"""Run-length encodings as COCO files have them, checked before they are used."""

from __future__ import annotations

from typing import Any


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

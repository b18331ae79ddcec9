"""Boxes around segmentations, held against pycocotools."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask

from detector.inspection.masks import box_of_mask

SIZE = (5, 7)


def runs_of(pixels):
    """The plain run-length encoding of a mask: background and object in turn, down the columns."""
    flat = pixels.ravel(order="F").tolist()
    counts, value = [0], 0
    for pixel in flat:
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


@given(arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.integers(0, 1)))
def test_encodings(pixels):
    encoded = mask.encode(np.asfortranarray(pixels))
    size, text, counts = list(pixels.shape), encoded["counts"].decode(), runs_of(pixels)
    expected = mask.toBbox(encoded).tolist() if pixels.any() else None
    assert box_of_mask({"size": size, "counts": text}, pixels.shape) == expected
    assert box_of_mask({"size": size, "counts": counts}, pixels.shape) == expected
    assert box_of_mask({"size": size, "counts": text[:-1]}, pixels.shape) is None  # cut off
    assert box_of_mask({"size": size, "counts": counts}, (size[0] + 1, size[1])) is None  # of another picture


@pytest.mark.parametrize(
    ("segmentation", "expected"),
    [
        ([[1, 1, 4.5, 1, 4.5, 3]], [1, 1, 3.5, 2]),
        ([[1, 1, 4, 1, 4, 3], [5, 0, 6, 0, 6, 2]], [1, 0, 5, 3]),
        ([1, 1, 4, 1, 4, 3], [1, 1, 3, 2]),
        ([[1, 1], [4, 1], [4, 3]], [1, 1, 3, 2]),
        ([["1", "1", "4", "1", "4", "3"]], [1, 1, 3, 2]),
        ([[1, 1, 4, 3]], None),  # two points; pycocotools takes four numbers for a box
        ([[1, 1, 4, 1, 4, 3], [5, 0]], None),
        ([[1, 1, 4, 1, 4]], None),
        ([[1, 1, 4, float("nan"), 4, 3]], None),
        ([[1, 1, 4, 1, 6, 1]], None),  # a line
        ([], None),
        ([None], None),
        (None, None),
        ("1 1 4 1 4 3", None),
        ({"size": [5, 7], "counts": [35]}, None),  # nothing in it
        ({"size": [5, 7], "counts": [6, 2, -1, 28]}, None),
        ({"size": [5, 7], "counts": "é"}, None),
        ({"counts": [6, 2, 27]}, None),
        ({"size": [5, 7]}, None),
    ],
)
def test_other_segmentations(segmentation, expected):
    assert box_of_mask(segmentation, SIZE) == expected

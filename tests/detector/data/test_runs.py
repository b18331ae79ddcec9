"""Run-length encodings, held against pycocotools."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask

from detector.data.runs import checked_runs


@given(arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.integers(0, 1)))
def test_compressed_runs(pixels):
    flat = [0, *pixels.ravel(order="F").tolist(), 2]
    changes = [0, *(np.flatnonzero(np.diff(flat))).tolist()]  # the first run is of background, and may be of length 0
    text = mask.encode(np.asfortranarray(pixels))["counts"].decode()
    runs = np.diff(changes).tolist()
    assert checked_runs(text, pixels.size) == checked_runs(runs, pixels.size) == runs
    assert checked_runs(text, pixels.size + 1) is None
    assert checked_runs(text[:-1], pixels.size) is None


@pytest.mark.parametrize(
    "counts", ["", "o" * 40, "8o", "P", "é", " ", [24.0], [True, 23], [25, -1], [10], [], None, b"8", {"a": 1}]
)
def test_damaged_runs(counts):
    assert checked_runs(counts, 24) is None

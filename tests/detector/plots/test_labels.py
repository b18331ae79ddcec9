"""Words in pictures: shortened, and placed where they cover least."""

import pytest

from detector.plots.labels import least_covered, overlap, shortened


def test_long_names_keep_both_ends():
    assert shortened("short") == "short"
    names = [shortened(f"a rather long class name {i}", 16) for i in (1, 2)]
    assert names == ["a rather… name 1", "a rather… name 2"]
    assert len(names[0]) == 16
    assert shortened("two\nlines  here") == "two lines here"


def test_overlap_by_hand():
    assert overlap((0, 0, 4, 3), (2, 1, 9, 9)) == 2 * 2
    assert overlap((0, 0, 1, 1), (1, 0, 2, 1)) == 0


def test_labels_take_the_next_free_corner_and_stay_in_the_picture():
    """A picture of 10 x 10, labels of 4 x 2: left or right, at the top or the bottom; the fifth covers one of them."""
    taken = []
    corners = [least_covered((-1, 6), (0, 9), (4, 2), (0, 0, 10, 10), taken) for _ in range(5)]
    assert corners == [(0, 0), (6, 0), (0, 8), (6, 8), (0, 0)]
    assert taken[1] == pytest.approx((6, 0, 10, 2))

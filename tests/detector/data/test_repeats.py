"""Repeat factors by hand."""

import math

import numpy as np
import pytest

from detector.data.coco import CocoDataset
from detector.data.repeats import repeat_factors


def test_factors_by_hand(write_coco):
    """Of eight images seven show cats and one of them a dog too; the dog is a crowd in another one."""
    rows = [(i, i, (1, 1, 9, 9)) for i in range(1, 8)]
    rows += [(10, 3, (5, 5, 9, 9), {"category_id": 7}), (11, 4, (5, 5, 9, 9), {"category_id": 7, "iscrowd": 1})]
    rows += [(12, 3, (6, 6, 9, 9), {"category_id": 7})]
    dataset = CocoDataset(*write_coco(rows, images=dict.fromkeys(range(1, 9), (40, 40))))
    expected = np.ones(8)
    expected[2] = math.sqrt(0.5 * 8)  # a dog in one of eight
    assert repeat_factors(dataset, 0.5) == pytest.approx(expected)
    expected[:7] = math.sqrt(8 / 7)  # cats in seven of eight
    expected[2] = math.sqrt(8)
    assert repeat_factors(dataset, 1.0) == pytest.approx(expected)
    assert (repeat_factors(dataset, 0.0) == 1).all()


def test_class_without_an_image(write_coco):
    dataset = CocoDataset(*write_coco([(1, 1, (1, 1, 9, 9))]))
    assert repeat_factors(dataset, 1.0) == pytest.approx([math.sqrt(2), 1.0])

import numpy as np
import pytest

from detector.evaluation.thresholds import OperatingPoint, calibration, kept, operating_points

CAT, DOG = 1, 2
BOX = (100, 100, 100, 100)
FAR = (400, 400, 50, 50)


def test_best_threshold_by_hand(scene):
    """Scores .9 true, .8 false, .7 true and false, .6 false of three cats: F1 is 2/4, 2/5, 4/7 at .7, 4/8 at .6."""
    matches = scene(
        [(1, CAT, BOX), (2, CAT, BOX), (3, CAT, BOX)],
        [
            (1, CAT, BOX, 0.9),
            (2, CAT, FAR, 0.8),
            (3, CAT, FAR, 0.7),
            (3, CAT, BOX, 0.7),
            (4, CAT, FAR, 0.6),
            (4, DOG, FAR, 0.9),
        ],
    )
    cat, dog = operating_points(matches)
    assert cat == OperatingPoint(0.7, pytest.approx(4 / 7), pytest.approx(2 / 4), pytest.approx(2 / 3))
    assert dog == OperatingPoint(None, None, None, None)
    keep = kept(matches, [cat, dog])
    assert sorted(matches.score[keep].tolist()) == [0.7, 0.7, 0.8, 0.9, 0.9]


def test_of_equal_f1_the_highest_threshold(scene):
    matches = scene(
        [(1, CAT, BOX), (2, CAT, BOX)], [(1, CAT, BOX, 0.9), (2, CAT, FAR, 0.8), (3, CAT, FAR, 0.7), (2, CAT, BOX, 0.6)]
    )
    assert operating_points(matches)[0].threshold == 0.9  # 2/3 at 0.9 and at 0.6


def test_calibration_by_hand(scene):
    matches = scene(
        [(1, CAT, BOX), (2, CAT, BOX), (3, CAT, (0, 0, 300, 300), "crowd")],
        [(1, CAT, BOX, 0.95), (2, CAT, FAR, 0.98), (2, CAT, BOX, 0.5), (3, CAT, BOX, 0.7), (4, DOG, BOX, 0.3)],
    )  # in the crowd, and of a class without objects: not counted
    found = calibration(matches)
    assert found.count.tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 2]
    assert found.score[[4, 9]] == pytest.approx([0.5, 0.965])
    assert found.precision[[4, 9]] == pytest.approx([1, 0.5])
    assert np.isnan(found.score[0])
    assert found.error == pytest.approx((1 * 0.5 + 2 * 0.465) / 3)


def test_a_calibrated_detector_has_a_small_error(scene):
    """A third of the detections of score 1/3 are right, and two thirds of those of score 2/3."""
    objects = [(1, CAT, (200 * i, 0, 50, 50)) for i in range(3)]
    detections = [(1, CAT, (200 * i, 0, 50, 50), 2 / 3 if i else 1 / 3) for i in range(3)]
    detections += [(1, CAT, (200 * i, 500, 50, 50), 2 / 3 if i == 2 else 1 / 3) for i in range(3)]
    assert calibration(scene(objects, detections)).error == pytest.approx(0)


def test_nothing_is_calibrated(scene):
    assert calibration(scene([], [])).error is None

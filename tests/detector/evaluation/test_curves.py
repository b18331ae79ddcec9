import numpy as np
import pytest

from detector.evaluation import curves

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
    cat, dog = curves.operating_points(matches)
    assert cat == curves.OperatingPoint(0.7, pytest.approx(4 / 7), pytest.approx(2 / 4), pytest.approx(2 / 3))
    assert dog == curves.OperatingPoint(None, None, None, None)
    kept = curves.kept(matches, [cat, dog])
    assert sorted(matches.score[kept].tolist()) == [0.7, 0.7, 0.8, 0.9, 0.9]


def test_of_equal_f1_the_highest_threshold(scene):
    matches = scene(
        [(1, CAT, BOX), (2, CAT, BOX)], [(1, CAT, BOX, 0.9), (2, CAT, FAR, 0.8), (3, CAT, FAR, 0.7), (2, CAT, BOX, 0.6)]
    )
    assert curves.operating_points(matches)[0].threshold == 0.9  # 2/3 at 0.9 and at 0.6


def test_confusion_matrix_by_hand(scene):
    matches = scene(
        [(1, CAT, BOX), (1, DOG, FAR), (2, CAT, BOX), (3, DOG, BOX), (4, CAT, (0, 0, 300, 300), "crowd")],
        [
            (1, CAT, BOX, 0.9),
            (1, CAT, FAR, 0.8),
            (2, CAT, FAR, 0.7),
            (3, DOG, BOX, 0.1),
            (4, CAT, BOX, 0.9),
            (3, CAT, (100, 100, 100, 60), 0.5),
        ],
    )
    everything = np.ones(len(matches.score), dtype=bool)
    #      as cat, as dog, not seen
    assert curves.confusion_matrix(matches, everything).tolist() == [[1, 0, 1], [1, 1, 0], [2, 0, 0]]
    # Without the dog of score 0.1, the box of the cat is its nearest.
    assert curves.confusion_matrix(matches, matches.score > 0.2).tolist() == [[1, 0, 1], [2, 0, 0], [1, 0, 0]]
    assert curves.confusion_matrix(matches, ~everything).tolist() == [[0, 0, 2], [0, 0, 2], [0, 0, 0]]


def test_confusion_pairs_the_best_overlap_first(scene):
    matches = scene(
        [(1, CAT, BOX), (1, CAT, (100, 100, 100, 80))],
        [(1, DOG, (100, 100, 100, 80), 0.5), (1, DOG, (100, 100, 100, 85), 0.9)],
    )
    table = curves.confusion_matrix(matches, np.ones(2, dtype=bool))
    assert table.tolist() == [[0, 2, 0], [0, 0, 0], [0, 0, 0]]


def test_calibration_by_hand(scene):
    matches = scene(
        [(1, CAT, BOX), (2, CAT, BOX), (3, CAT, (0, 0, 300, 300), "crowd")],
        [(1, CAT, BOX, 0.95), (2, CAT, FAR, 0.98), (2, CAT, BOX, 0.5), (3, CAT, BOX, 0.7), (4, DOG, BOX, 0.3)],
    )  # in the crowd, and of a class without objects: not counted
    found = curves.calibration(matches)
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
    assert curves.calibration(scene(objects, detections)).error == pytest.approx(0)


def test_nothing_is_calibrated(scene):
    assert curves.calibration(scene([], [])).error is None


def test_recall_by_side_by_hand(scene):
    sizes = [
        (1, CAT, (0, 0, 10, 10)),
        (2, CAT, (0, 0, 16, 16)),
        (3, CAT, (0, 0, 31, 32)),
        (4, CAT, (0, 0, 300, 300)),
        (4, CAT, (600, 0, 300, 300), "crowd"),
    ]
    matches = scene(
        sizes, [(1, CAT, (0, 0, 10, 7), 0.1), (3, CAT, (0, 0, 31, 32), 0.9), (4, CAT, (600, 0, 300, 300), 1)]
    )
    count, recall = curves.recall_by_side(matches)
    assert count.tolist() == [1, 2, 0, 0, 0, 0, 1]
    assert recall[:, 0].tolist()[:2] == [1, 0.5]
    assert recall[:, 9].tolist()[:2] == [0, 0.5]  # IoU 0.7 is not enough
    assert np.isnan(recall[2]).all()
    assert recall[6].tolist() == [0] * 10


def test_curves_of_the_accumulated_numbers(scene):
    matches = scene([(1, CAT, BOX), (2, CAT, BOX)], [(1, CAT, (100, 100, 100, 80), 0.9), (2, CAT, FAR, 0.95)])
    found = matches.accumulated()
    values = curves.ap_by_iou(found)
    assert values[:7] == pytest.approx([0.5 * 51 / 101] * 7)
    assert values[7:] == [0, 0, 0]
    precision = curves.precision_curves(found)
    assert precision[0] == pytest.approx([0.5] * 51 + [0] * 50)
    assert precision[9] == pytest.approx([0] * 101)
    assert np.isnan(curves.precision_curves(scene([], []).accumulated())).all()

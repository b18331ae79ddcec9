"""Each kind of error planted on its own, with its cost by hand, and all together."""

import numpy as np
import pytest

from detector.evaluation.errors import KINDS, find_errors

CAT, DOG = 1, 2
BOX = (100, 100, 100, 100)
HALF = (100, 100, 100, 40)  # IoU 0.4 with BOX
LOW = (100, 100, 100, 11)  # IoU 0.11
SLIVER = (100, 100, 100, 9)  # IoU 0.09
FAR = (400, 400, 50, 50)
FOUND = (2, CAT, BOX, 0.5)  # of an object in image 2, below the errors in score
# With one of two cats found below one false detection, precision is 1/2 up to recall 1/2: 51 of the 101 recalls.
ONE_OF_TWO = 0.5 * 51 / 101


def kinds(matches):
    """Kind of each detection in the order of their scores, None for no error."""
    errors = find_errors(matches)
    order = np.argsort(-matches.score, kind="stable")
    return [KINDS[k] if k >= 0 else None for k in errors.kind[order]]


@pytest.mark.parametrize(
    ("wrong", "kind", "cost"),
    [
        # The cat of image 1 is there; the error is about it, and corrected it would be a find: all found, none false.
        ((1, CAT, HALF, 0.9), "localisation", 1 - ONE_OF_TWO),
        ((1, CAT, LOW, 0.9), "localisation", 1 - ONE_OF_TWO),
        # Not about an object that could be found: taken away, precision 1 up to recall 1/2.
        ((1, CAT, SLIVER, 0.9), "background", 51 / 101 - ONE_OF_TWO),
        ((1, CAT, FAR, 0.9), "background", 51 / 101 - ONE_OF_TWO),
        ((3, CAT, FAR, 0.9), "background", 51 / 101 - ONE_OF_TWO),  # in an image without objects
    ],
)
def test_false_cats(scene, wrong, kind, cost):
    matches = scene([(1, CAT, BOX), (2, CAT, BOX)], [wrong, FOUND])
    assert kinds(matches) == [kind, None]
    errors = find_errors(matches)
    assert errors.ap50 == pytest.approx(ONE_OF_TWO)
    assert errors.cost[kind] == pytest.approx(cost)
    # Without the missed cat, the one that is found is all there is, at precision 1/2.
    missed = kind == "background"
    assert errors.missed.tolist() == [missed, False]
    assert errors.cost["missed"] == pytest.approx(0.5 - ONE_OF_TWO if missed else 0)
    others = set(KINDS) - {kind, "missed"}
    assert {errors.cost[k] for k in others} == {0}
    assert errors.counts.sum() == 1 + missed


def test_a_cat_called_a_dog(scene):
    """Corrected it is a found cat; the dog class, which has an object in image 4, gains nothing."""
    matches = scene([(1, CAT, BOX), (2, CAT, BOX), (4, DOG, BOX)], [(1, DOG, BOX, 0.9), FOUND, (4, DOG, BOX, 0.95)])
    errors = find_errors(matches)
    assert kinds(matches) == [None, "classification", None]
    assert errors.ap50 == pytest.approx((51 / 101 + 1) / 2)
    assert errors.cost["classification"] == pytest.approx((1 - 51 / 101) / 2)
    assert errors.cost["missed"] == 0  # the cat is the classification error's
    assert errors.counts.tolist() == [[0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]]


def test_a_second_detection_of_a_cat(scene):
    matches = scene(
        [(2, CAT, BOX), (1, CAT, BOX)], [(2, CAT, BOX, 0.9), (2, CAT, (100, 100, 100, 90), 0.8), (1, CAT, BOX, 0.7)]
    )
    errors = find_errors(matches)
    assert kinds(matches) == [None, "duplicate", None]
    assert errors.ap50 == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert errors.cost["duplicate"] == pytest.approx(1 - errors.ap50)
    assert errors.about[1] == 1  # objects are sorted by image


def test_wrong_class_and_wrong_place(scene):
    matches = scene([(1, CAT, BOX), (2, CAT, BOX), (4, DOG, BOX)], [(1, DOG, HALF, 0.9), FOUND, (4, DOG, BOX, 0.8)])
    errors = find_errors(matches)
    assert kinds(matches) == ["both", None, None]
    assert errors.ap50 == pytest.approx((51 / 101 + 0.5) / 2)
    assert errors.cost["both"] == pytest.approx(0.25)
    assert errors.missed.tolist() == [True, False, False]
    assert errors.cost["missed"] == pytest.approx((1 - 51 / 101) / 2)


def test_missed_cats(scene):
    matches = scene([(1, CAT, BOX), (2, CAT, BOX), (3, CAT, BOX)], [FOUND])
    errors = find_errors(matches)
    assert errors.ap50 == pytest.approx(34 / 101)
    assert errors.cost["missed"] == pytest.approx(67 / 101)
    assert errors.counts.tolist() == [[0, 0, 0, 0, 0, 2], [0] * 6]


def test_a_class_of_which_everything_is_missed(scene):
    """Its objects taken out of the count, it has nothing left to be measured on; false detections of it remain."""
    objects = [(2, CAT, BOX), (3, DOG, BOX)]
    errors = find_errors(scene(objects, [FOUND]))
    assert (errors.ap50, errors.cost["missed"]) == (pytest.approx(0.5), pytest.approx(0.5))
    errors = find_errors(scene(objects, [FOUND, (3, DOG, FAR, 0.9)]))
    assert (errors.ap50, errors.cost["missed"]) == (pytest.approx(0.5), 0)


def test_limits_belong_where_the_definition_puts_them(scene):
    """IoU exactly 0.5 with an object already found is a duplicate; exactly 0.1 is a localisation error."""
    matches = scene(
        [(1, CAT, BOX)], [(1, CAT, BOX, 0.9), (1, CAT, (100, 100, 100, 50), 0.8), (1, CAT, (100, 100, 100, 10), 0.7)]
    )
    assert kinds(matches) == [None, "duplicate", "localisation"]


def test_a_false_positive_near_two_objects(scene):
    """Localisation goes before classification, classification before duplicate."""
    overlapping = [(1, CAT, BOX), (1, DOG, (100, 100, 100, 55))]
    found = [(1, CAT, BOX, 0.9), (1, DOG, (100, 100, 100, 55), 0.9)]
    matches = scene(overlapping, [*found, (1, DOG, (100, 130, 100, 70), 0.5)])
    assert kinds(matches)[2] == "localisation"  # 0.25 with the dog, 0.7 with the cat
    matches = scene(overlapping, [*found, (1, CAT, (100, 100, 100, 60), 0.5)])
    assert kinds(matches)[2] == "classification"  # 0.6 with the cat that is found, 0.92 with the dog


def test_only_the_best_of_several_errors_about_an_object_is_corrected(scene):
    """The better-scored one becomes the find, the other is taken away: nothing false is left of the kind."""
    matches = scene([(1, CAT, BOX)], [(1, CAT, HALF, 0.8), (1, CAT, (100, 100, 100, 45), 0.7)])
    errors = find_errors(matches)
    assert kinds(matches) == ["localisation", "localisation"]
    assert (errors.ap50, errors.cost["localisation"]) == (0, pytest.approx(1))


def test_an_error_about_an_object_that_is_found_is_taken_away(scene):
    matches = scene([(1, CAT, BOX)], [(1, CAT, HALF, 0.9), (1, CAT, BOX, 0.5)])
    errors = find_errors(matches)
    assert kinds(matches) == ["localisation", None]
    assert errors.cost["localisation"] == pytest.approx(0.5)


def test_crowds_and_what_is_in_them_are_no_errors(scene):
    matches = scene([(1, CAT, (0, 0, 300, 300), "crowd"), (2, CAT, BOX)], [(1, CAT, BOX, 0.9), FOUND])
    errors = find_errors(matches)
    assert kinds(matches) == [None, None]
    assert errors.missed.tolist() == [False, False]
    assert set(errors.cost.values()) == {0}


def test_nothing(scene):
    errors = find_errors(scene([], []))
    assert errors.ap50 is None
    assert set(errors.cost.values()) == {0}
    assert find_errors(scene([], [(1, CAT, BOX, 0.5)])).counts.sum() == 1


def test_all_kinds_at_once_add_up_to_every_detection(scene):
    matches = scene(
        [(1, CAT, BOX), (1, DOG, (300, 100, 100, 100)), (2, CAT, BOX), (3, DOG, BOX), (4, CAT, FAR)],
        [
            (1, CAT, BOX, 0.9),
            (1, CAT, (100, 100, 100, 95), 0.8),
            (1, DOG, (300, 100, 100, 40), 0.7),
            (2, DOG, BOX, 0.6),
            (3, CAT, HALF, 0.5),
            (3, CAT, FAR, 0.4),
        ],
    )
    assert kinds(matches) == [None, "duplicate", "localisation", "classification", "both", "background"]
    errors = find_errors(matches)
    assert errors.counts.sum(axis=0).tolist() == [1, 1, 1, 1, 1, 2]
    assert all(value >= 0 for value in errors.cost.values())

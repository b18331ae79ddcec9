"""What is said in words, from scenes in which one thing is wrong."""

import pytest

from detector.config.commands import script
from detector.evaluation.detections import Detections
from detector.evaluation.diagnosis import diagnose
from detector.evaluation.findings import findings
from detector.evaluation.ground_truth import GroundTruth
from detector.evaluation.intervals import resample
from detector.evaluation.matches import match

CAT, DOG = 1, 2


@pytest.fixture
def said(write_json):
    """``said(objects, detections)``: the findings of rows of (image, class, box) and (image, class, box, score).

    Without the last sentence, which is there where keys are named: whose they are.
    """

    def build(objects, detections):
        annotations = [
            {"id": number, "image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3]}
            for number, (image, label, box) in enumerate(objects, start=1)
        ]
        content = {
            "images": [{"id": i} for i in range(1, 31)],
            "annotations": annotations,
            "categories": [{"id": CAT, "name": "cat"}, {"id": DOG, "name": "dog"}],
        }
        columns = zip(*detections, strict=True) if detections else ((), (), (), ())
        matches = match(GroundTruth(write_json("gt.json", content)), Detections(*columns))
        *sentences, last = findings(diagnose(matches, resample(30, 0)))
        whose = f"python {script('train')}" in last
        assert whose == any("model." in sentence for sentence in (*sentences, last))
        return sentences if whose else [*sentences, last]

    return build


def grid(label, side, images=range(1, 31)):
    return [(image, label, [10, 10, side, side]) for image in images]


def found(objects, height=1.0, score=1.0):
    """A detection of each object with ``height`` of its box: the IoU."""
    return [(image, label, [x, y, w, h * height], score) for image, label, (x, y, w, h) in objects]


def test_nothing_is_wrong(said):
    objects = grid(CAT, 100)
    assert said(objects, found(objects)) == ["No kind of error costs more than a rounding error of AP50."]
    assert said([], []) == ["There is no ground truth in these images: nothing can be said."]


def test_nothing_is_found(said):
    """TIDE's costs are all 0 then: there is no AP that could be won by a single kind."""
    objects = grid(CAT, 100)
    (nothing,) = said(objects, [])
    assert nothing.startswith("There is no detection in these images.")
    (elsewhere,) = said(objects, [(1, CAT, [400, 400, 5, 5], 0.9), (1, DOG, [10, 10, 100, 100], 0.9)])
    assert elsewhere.startswith("No detection matches an object of its class at IoU 0.5.")


def test_the_most_costly_error_comes_first_with_its_class(said):
    objects = grid(CAT, 100) + [(i, DOG, [200, 10, 100, 100]) for i in range(1, 31)]
    wrong = found(objects[:10], 0.3) + [(30, DOG, [400, 400, 50, 50], 0.99)] * 2  # a third of the cats
    # Cats: precision 20/30 for 67 of the 101 recalls. Dogs: 30/32 for all of them. Each of two classes.
    localisation, background = (1 - 2 / 3 * 67 / 101) / 2, (1 - 30 / 32) / 2
    sentences = said(objects, found(objects[10:], score=0.9) + wrong)
    assert sentences[0].startswith(f"Localisation errors cost {localisation:.3f} of AP50")
    assert "(10 detections, 10 of them cat)" in sentences[0]
    assert sentences[1].startswith(f"Background errors cost {background:.3f} of AP50")
    assert "(2 detections, 2 of them dog)" in sentences[1]


def test_a_class_is_named_only_if_much_of_an_error_is_in_it_and_a_pair_only_if_it_is_no_chance(said):
    cats, dogs = grid(CAT, 100), [(i, DOG, [200, 10, 100, 100]) for i in range(1, 31)]
    swapped = [(image, DOG, box, 1.0) for image, _, box in cats[:9]]
    sentences = said(cats + dogs, found(cats[9:]) + found(dogs) + swapped)
    assert "(9 detections, 9 of them dog)" in sentences[0]
    assert "Most often cat is taken for dog (9 times)." in sentences[0]
    once, *_ = said(cats[:3] + dogs[:3], found(cats[1:3]) + found(dogs[:3]) + swapped[:1])
    assert once.startswith("Classification errors cost")
    assert "Most often" not in once


def test_inexact_boxes_in_all_classes(said):
    objects = grid(CAT, 100) + [(i, DOG, [200, 10, 100, 100]) for i in range(1, 31)]
    (sentence,) = said(objects, found(objects, 0.6))
    assert sentence.startswith("AP falls from 1.000 at IoU 0.50 to 0.000 at 0.75: objects are found, but")
    assert "The steepest: cat 1.000 to 0.000, dog 1.000 to 0.000. A finer map" in sentence


def test_inexact_boxes_in_one_class_and_its_size(said):
    """Cats are exact, half of the dogs are not, and smaller: the mean of the classes hides it."""
    cats, dogs = grid(CAT, 100), [(i, DOG, [200, 10, 40, 40]) for i in range(1, 31)]
    boxes, size = said(cats + dogs, found(cats) + found(dogs[:15], 0.6) + found(dogs[15:]))
    assert boxes.startswith("AP falls from 1.000 at IoU 0.50 to 0.")
    assert "in some classes: dog 1.000 to 0." in boxes
    assert "cat" not in boxes
    assert size.startswith(
        "Of the 30 objects of a side of 32 to 64 pixels 50% are found with a box of IoU 0.75 or "
        "more, of the others 100%."
    )


def test_a_size_that_is_not_found(said):
    small, large = grid(CAT, 20), [(i, CAT, [200, 10, 100, 100]) for i in range(1, 31)]
    sentences = said(small + large, found(small[:15]) + found(large))
    assert sentences[-1].startswith(
        "Of the 30 objects of a side of 16 to 32 pixels 50% are found at any score, of the others 100%."
    )


def test_scores(said):
    objects = grid(CAT, 100)
    (low,) = said(objects, found(objects, score=0.6))
    assert low.startswith("Scores are not probabilities: on average they are 0.40 too low (expected calibration error")
    (percent,) = said(objects, found(objects[:15], score=99.0) + found(objects[15:], score=50.0))
    assert percent.startswith("Scores are not probabilities: they go from 50 to 99.")

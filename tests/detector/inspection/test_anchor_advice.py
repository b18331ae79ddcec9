"""What is said about anchors: how many objects they reach, which they miss, and arguments that reach more."""

import re
import shlex

import numpy as np
import pytest
from torchvision_anchors import torchvision_best_iou

from detector.config.commands import configs_folder
from detector.config.composition import compose
from detector.config.schema import InspectConfig, parse
from detector.inspection.anchor_advice import AnchorStudy, telling_limit
from detector.inspection.anchor_fit import resized_objects
from detector.models.backbone import anchor_strides


def model_of(*arguments):
    return parse(compose([configs_folder()], "inspect_data", ["data=coco", *arguments]), InspectConfig).model


def study(sides, model, size=(150, 200), count=20):
    """``count`` objects of each of ``sides`` (width, height) at random places of images of one size."""
    sides = np.repeat(np.array(sides, dtype=float), count, axis=0)
    corner = np.random.default_rng(0).uniform(0, 1, sides.shape) * (np.array(size)[::-1] - sides)
    boxes = np.concatenate([corner, corner + sides], axis=1)
    return AnchorStudy(boxes, np.tile(size, (len(boxes), 1)), model)


def arguments_of(sentence):
    """The ``model....`` arguments that a sentence gives."""
    return [word for word in shlex.split(sentence.replace("'", "")) if re.match(r"model\.[\w.]+=", word)]


def recall(found, model):
    """The share of objects that have one of all anchors of torchvision with IoU 0.5."""
    objects = resized_objects(found.boxes, found.sizes, model)
    size = tuple(int(side) for side in objects.inputs[0])
    anchors, strides = model.anchors, anchor_strides(model)
    return (torchvision_best_iou(objects.boxes, size, anchors.sizes, anchors.aspect_ratios, strides) >= 0.5).mean()


# By hand: the input is 200 x 266, so sides grow by 4/3. Anchors of 32 pixels and more reach 60 x 60 (80) and not 9 x 9
# (12), whose IoU with 32 x 32 is at most 0.14.
def test_small_objects_are_missed_and_other_anchors_reach_them():
    model = model_of("model.min_size=[200]")
    found = study([(9, 9), (9, 9), (60, 60)], model)
    finding, *options = found.advice()
    assert recall(found, model) == pytest.approx(1 / 3)
    assert "33% of the training boxes have an anchor of IoU 0.5" in finding
    limit = re.search(r"100% of those narrower than (\d+) pixels, 0% of the others", finding)
    assert 12 < int(limit[1]) <= 80
    reached = [recall(found, model_of("model.min_size=[200]", *arguments_of(said))) for said in options]
    assert reached[0] > 0.85
    for said, share in zip(options, reached, strict=True):
        assert f"{share:.0%} instead of 33%" in said
    # Twice the input makes them 24 pixels: too little for 32 x 32, whose IoU is 0.56 only where the centres are near.
    assert any("model.min_size=[400]" in said for said in options)


def test_anchors_of_two_thirds_are_not_spoken_of_unless_others_are_better():
    # 24 x 24 becomes 32 x 32: an anchor is 2 pixels away at most: an IoU of at least 30^2 / (2 * 32^2 - 30^2) = 0.78.
    assert study([(24, 24)], model_of("model.min_size=[200]", "model.anchors.aspect_ratios=[1]")).advice() == []
    model = model_of("model.min_size=[200]", "model.anchors.sizes=[[44],[64],[128],[256],[512]]")
    (said,) = study([(24, 24)], model).advice()  # 32^2 / 44^2 = 0.53
    assert "100% instead of 100%" in said
    assert "100% instead of 0% one of 0.7" in said


@pytest.mark.parametrize(
    ("sides", "words"),
    [([(40, 40), (140, 140)], "larger than"), ([(12, 12), (60, 60), (14, 112), (112, 14)], "as long as wide")],
)
def test_what_is_missed_is_said(sides, words):
    """A map of stride 4 with anchors of 16 to 64 pixels: sides are a third larger in the input."""
    model = model_of("model.min_size=[200]", "model.fpn_strides=[4]", "model.anchors.sizes=[[16,32,64]]")
    finding = study(sides, model).advice()[0]
    assert words in re.search("100% of those ([^,]*), 0% of the others", finding)[1]


def test_a_larger_input_comes_first_where_anchors_cannot_do_it():
    """Objects of 18 pixels on a map of stride 32: most lie between the anchors, whatever their size."""
    model = model_of("model=c5", "model.min_size=[150]", "model.max_size=250")
    found = study([(22, 22)], model)
    options = found.advice()[1:]
    first = arguments_of(options[0])
    assert first[:2] == ["model.min_size=[300]", "model.max_size=500"]
    assert recall(found, model_of("model=c5", *first)) > max(
        recall(found, model), recall(found, model_of("model=c5", "model.min_size=[150]", *arguments_of(options[-1])))
    )


def test_a_larger_input_alone_is_enough():
    """45 x 45 on a map of stride 32: an anchor is up to 16 pixels away in x and y, and has an IoU of 0.26 at worst,
    whatever its size. 90 x 90 on 90 x 90: 74^2 / (2 * 90^2 - 74^2) = 0.51 at worst."""
    keys = ("model=c5", "model.min_size=[150]", "model.anchors.sizes=[[90]]", "model.anchors.aspect_ratios=[1]")
    found = study([(45, 45)], model_of(*keys), count=60)
    _, first, *others = found.advice()
    assert arguments_of(first) == ["model.min_size=[300]", "model.max_size=2666"]
    assert recall(found, model_of(*keys, *arguments_of(first))) == 1
    assert "100% instead of 0%" in first
    (anchors,) = others
    assert arguments_of(anchors)[0].startswith("model.anchors.sizes=")


def test_objects_beyond_all_anchors():
    finding = study([(2, 2)], model_of("model.min_size=[150]")).advice()[0]
    assert "sides of 2 pixels" in finding
    assert "stride 4, 8, 16, 32, 64" in finding


def test_the_limit_that_parts_best():
    # Above 6 are 3 of 3 missed and 0 of 2 others.
    values, missed = np.array([9.0, 1.0, 8.0, 5.0, 7.0]), np.array([True, False, True, False, True])
    assert telling_limit(values, missed) == 6.0
    # Above 2.5: 2 of 2 and 1 of 2; above 3.5: 1 of 2 and 1 of 2; equal values are not parted.
    assert telling_limit(np.array([4.0, 3.0, 3.0, 2.0]), np.array([False, True, True, False])) == 2.5
    assert telling_limit(np.array([2.0]), np.array([True])) == 2.0

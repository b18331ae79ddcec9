"""Proposed anchors, and the clusters of aspect ratios."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision_anchors import torchvision_best_iou

from detector.config.defaults import default
from detector.config.schema import AnchorConfig, ModelConfig
from detector.inspection.anchor_fit import Objects, fit_anchors, with_anchors
from detector.inspection.anchor_search import Search, k_means, propose_anchors
from detector.models.backbone import anchor_strides
from detector.models.faster_rcnn import check_model
from detector.models.proposals import anchor_sides


def objects(sides, size=(640, 640), seed=0):
    """Objects of ``sides`` (width, height) at random places of an image."""
    sides = np.asarray(sides, dtype=float)
    corner = np.random.default_rng(seed).uniform(0, 1, sides.shape) * (np.array(size)[::-1] - sides)
    return Objects(np.concatenate([corner, corner + sides], axis=1), np.tile(np.float64(size), (len(sides), 1)))


def score(found, model, sizes):
    """Recall at IoU 0.5 plus mean IoU of all anchors of torchvision with ``sizes`` and the model's aspect ratios."""
    size = tuple(int(side) for side in found.inputs[0])
    ratios = model.anchors.aspect_ratios
    iou = torchvision_best_iou(found.boxes, size, sizes, ratios, anchor_strides(model))
    return (iou >= 0.5).mean(), iou.mean()


ANCHORS = {
    "fpn": [[32.0], [64.0], [128.0], [256.0], [512.0]],
    "c5": [[32.0, 64.0, 128.0, 256.0, 512.0]],
    "small": [[16.0, 32.0], [64.0, 128.0]],
}


def model_of(name):
    strides = {"fpn_strides": [8, 16]} if name == "small" else {}
    anchors = AnchorConfig(sizes=ANCHORS[name], aspect_ratios=[0.5, 1.0, 2.0])
    return default(ModelConfig, name="c5" if name == "c5" else "fpn", anchors=anchors, **strides)


@settings(max_examples=6)
@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(ANCHORS)))
def test_proposals_are_at_least_as_good_as_other_scales(seed, name):
    """Counted on all anchors that torchvision would place. Sums of the two numbers are compared, of which a proposal
    may lose a hundredth of the first to win in the second."""
    rng = np.random.default_rng(seed)
    sides = np.exp(rng.normal(rng.uniform(2, 5), rng.uniform(0.1, 0.7), (40, 2))).clip(2, 250)
    found, model = objects(sides, (288, 256), seed), model_of(name)
    proposed = propose_anchors(found, model)
    chosen = with_anchors(model, proposed.sizes, proposed.aspect_ratios)
    check_model(chosen)
    recall, mean = score(found, chosen, proposed.sizes)
    for factor in (0.25, 0.5, 1, 2):
        plain = score(found, model, [[size * factor for size in of_map] for of_map in ANCHORS[name]])
        assert recall >= plain[0] - 0.01
        assert recall + mean >= sum(plain) - 1e-6


def test_small_objects_get_sizes_on_fine_maps():
    """Of objects of 19 pixels an anchor of stride 16 reaches only those near it: sizes that are ordered by k-means
    alone put 19 there and miss half of them."""
    sides = np.random.default_rng(0).lognormal(np.log(17), 0.6, (120, 2)).clip(4, 90)
    found, model = objects(sides, (320, 320)), model_of("fpn")
    proposed = propose_anchors(found, model)
    assert score(found, with_anchors(model, proposed.sizes, proposed.aspect_ratios), proposed.sizes)[0] > 0.8
    side = np.log(np.sqrt(sides.prod(axis=1)))
    clusters = [[size] for size in np.exp(k_means(side, 5)).tolist()]
    assert score(found, model, clusters)[0] < 0.6
    assert score(found, model, ANCHORS["fpn"])[0] < 0.4


@pytest.mark.parametrize("ratios", [[1.0], [0.5, 1.0, 2.0], [0.01], [7.0, 0.2]])
def test_the_smallest_size_that_is_tried_has_an_area(ratios):
    smallest = Search(objects([[1, 1]]), model_of("fpn"), ratios).smallest
    assert (anchor_sides([smallest], ratios) > 0).all()
    assert (anchor_sides([smallest - 1], ratios) == 0).any()


def test_rare_objects_are_not_given_up_for_better_overlaps_of_the_others():
    """138 x 138 has an IoU of 0.52 with 100 x 100 and of 0.53 with 190 x 190, which 100 x 100 does not reach."""
    found = objects([[100, 100]] * 95 + [[190, 190]] * 5, (320, 320))
    anchors = AnchorConfig(sizes=[[138.0]], aspect_ratios=[1.0])
    model = default(ModelConfig, fpn_strides=[4], anchors=anchors)
    proposed = propose_anchors(found, model)
    assert score(found, with_anchors(model, proposed.sizes, proposed.aspect_ratios), proposed.sizes)[0] > 0.99


@pytest.mark.parametrize("name", sorted(ANCHORS))
@pytest.mark.parametrize(
    ("sides", "least"),
    [
        ([[80, 130]], 1.0),  # one object
        ([[100, 100]] * 50, 1.0),  # objects that are all equal: fewer different sizes than maps
        ([[2, 2]] * 50, 0.0),  # no anchor of these strides can reach them
        ([[1.2, 1.2]] * 50, 0.0),  # an anchor of 1 pixel has no area
        ([[0.01, 600]] * 50, 0.0),
        ([[3, 600]] * 30 + [[600, 3]] * 30, 0.0),
        ([[200 + i % 40, 190 + i % 60] for i in range(40)], 1.0),
        ([[639, 639]] * 3, 1.0),
    ],
)
def test_extreme_objects(name, sides, least):
    found, model = objects(sides), model_of(name)
    proposed = propose_anchors(found, model)
    chosen = with_anchors(model, proposed.sizes, proposed.aspect_ratios)
    check_model(chosen)  # as many maps as before, and every anchor has an area
    assert [len(of_map) for of_map in proposed.sizes] == [len(of_map) for of_map in ANCHORS[name]]
    assert all(0.01 <= ratio <= 100 for ratio in proposed.aspect_ratios)
    assert 1 <= len(proposed.aspect_ratios) <= 3
    assert score(found, chosen, proposed.sizes)[0] >= max(least, fit_anchors(found, model).recall(0.5))


def test_k_means_finds_clusters():
    values = np.concatenate([np.full(50, 1.0), np.full(5, 4.0), np.full(20, 4.5), [9.0]])
    assert k_means(values, 3).tolist() == pytest.approx([1.0, 4.4, 9.0])
    assert k_means(np.full(7, 2.0), 3).tolist() == [2.0, 2.0, 2.0]
    assert k_means(np.array([1.0, 3.0]), 1).tolist() == [2.0]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=9), st.integers(1, 4))
def test_no_clusters_are_better(numbers, count):
    values = np.array(numbers, dtype=float)
    centres = k_means(values, count)
    assert len(centres) == count
    assert (np.diff(centres) >= 0).all()
    loss = (np.abs(values[:, None] - centres).min(axis=1) ** 2).sum()
    ordered = np.sort(values)
    splits = itertools.combinations_with_replacement(range(len(values) + 1), count - 1)
    parts = [np.split(ordered, borders) for borders in splits]
    assert loss == pytest.approx(min(sum(len(p) * p.var() for p in some if len(p)) for some in parts), abs=1e-6)


def test_clusters_of_many_numbers():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 0.1, 5000), rng.normal(5, 0.1, 50)])
    assert k_means(values, 2).tolist() == pytest.approx([values[:5000].mean(), values[5000:].mean()])

"""The training that inspect_data derives from the boxes, by hand: every expected number is worked out in a comment."""

import numpy as np
import pytest

from detector.config.commands import configs_folder
from detector.config.composition import compose
from detector.config.configure import configure
from detector.config.schema import Config, parse
from detector.inspection.anchor_advice import AnchorStudy
from detector.inspection.recipe import INPUT, derive


def recipe(sides, size, images=300, **keys):
    """The recipe for square objects of ``sides`` pixels, one an image of ``size`` (height, width), all at one place."""
    config = configure(Config, keys if "experiment" in keys else {"data": "coco", **keys})
    sides = np.asarray(sides, dtype=float)
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], axis=1)
    return derive(config, AnchorStudy(boxes, np.tile(size, (len(boxes), 1)), config.model), np.tile(size, (images, 1)))


def trained(found):
    """The configuration that ``scripts/train.py`` makes of the arguments."""
    return parse(compose([configs_folder()], "train", found.arguments))


# Small is 3 cells of stride 8: 24 pixels of the input.
@pytest.mark.parametrize(
    ("side", "size", "input_side", "long", "strides"),
    [
        (32, (640, 640), 480, 960, [8, 16]),  # 24 / 32 * 640 = 480: small and large objects have 24 pixels
        (31, (640, 640), 512, 1024, [8, 16]),  # 495, and the next multiple of 32
        (30, (480, 640), 384, 768, [8, 16]),  # of the short side: 24 / 30 * 480
        (20, (640, 640), 640, 1280, [8, 16]),  # 768, but the pictures have 640; 20 pixels are 2.5 cells
        (12, (640, 640), 640, 1280, [4, 8]),  # 1.5 cells of stride 8
        (20, (3000, 2000), 800, 1333, [4, 8]),  # at most 800: 20 * 800 / 2000 = 8 pixels are 1 cell
        (100, (640, 640), 320, 640, [8, 16]),  # 154, but at least 320: 50 pixels, of which 7 cells of 8 are 56
        (120, (640, 640), 320, 640, [8, 16]),  # 60 pixels are more than 7 cells of 8, fewer than 7 of 16
        (230, (640, 640), 320, 640, [16, 32]),  # 115 pixels cover 7 cells of 16, and no more than 7 of 32
    ],
)
def test_size_of_the_input_and_maps(side, size, input_side, long, strides):
    config = trained(recipe([side] * 50, size))
    assert (config.model.min_size, config.model.max_size) == ([input_side], long)
    assert config.model.fpn_strides == strides
    assert [len(of_map) for of_map in config.model.anchors.sizes] == [2, 2]


def test_large_objects_have_a_coarse_map():
    """A fifth of the objects are small, and as many are large: 24 and 150 pixels, which are 9.4 cells of 16."""
    config = trained(recipe([32] * 20 + [64] * 60 + [200] * 20, (640, 640)))
    assert (config.model.min_size, config.model.fpn_strides) == ([480], [8, 16, 32])


def test_where_objects_are_pooled():
    """An object with a cell for each bin is pooled from the next map: FPN, eq. 1, with level 4 for stride 16."""
    for bins in (7, 14):
        config = trained(recipe([32] * 50, (640, 640), **{"roi.output_size": [bins, bins]}))
        side = bins * 8  # pixels of the input: a cell of stride 8 for each bin
        assert 2 ** np.floor(4 + np.log2(side / config.roi.canonical_scale)) == 16
        assert 2 ** np.floor(4 + np.log2((side - 1) / config.roi.canonical_scale)) == 8


def test_anchors_are_the_size_of_the_objects():
    config = trained(recipe([32] * 50, (640, 640)))  # 24 pixels, square, in the corner
    assert min(abs(side - 24) for of_map in config.model.anchors.sizes for side in of_map) <= 1


@pytest.mark.parametrize("start", [{}, {"experiment": "finetune_small"}])
def test_what_was_given_stays_and_nothing_else_is_said(start):
    """Besides what is derived, the arguments are those that differ from the recipe; all of them reach the training."""
    given = {"data.root": "a b/${c}", "model.weights": "w.pth", "augment.vertical_flip": 0.5, "optim.lr": 1e-3}
    found = recipe(
        [32] * 50, (640, 640), **start, **given, **{"model.image_mean": [0.5, 0.25, 0.125], "data.keep_empty": False}
    )
    config = trained(found)
    assert (config.data.root, config.model.weights, config.data.keep_empty) == ("a b/${c}", "w.pth", False)
    assert (config.augment.vertical_flip, config.optim.lr) == (0.5, 1e-3)
    assert config.model.image_mean == [0.5, 0.25, 0.125]
    assert config.model.norm == "frozen"  # of the recipe
    derived = {"model.min_size", "model.max_size", "model.anchors.sizes", "model.anchors.aspect_ratios",
               "trainer.max_steps", "trainer.eval_every"}  # fmt: skip
    keys = {argument.partition("=")[0] for argument in found.arguments}
    assert keys - derived == {"experiment", "model.image_mean", *given, "data.keep_empty"}


# 480 x 640 becomes 384 x 512 (small objects as above, of 30 pixels).
@pytest.mark.parametrize(
    ("images", "batch", "steps"),
    [
        (5000, 4, INPUT / (384 * 512) / 4),
        (5000, 2, INPUT / (384 * 512) / 2),
        (40, 4, 24 * 40 / 4),  # 24 epochs
        (8, 4, 200),  # 24 epochs are 48 steps
    ],
)
def test_length(images, batch, steps):
    found = recipe([30] * 50, (480, 640), images, **{"experiment": "finetune_small", "data.batch_size": batch})
    config = trained(found)
    assert config.trainer.max_steps == pytest.approx(steps, abs=1)
    assert config.data.batch_size == batch

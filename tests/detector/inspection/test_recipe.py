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


# Small objects are to have 20 pixels in the input: 2.5 cells of stride 8.
@pytest.mark.parametrize(
    ("side", "size", "input_side", "long", "strides"),
    [
        (25, (640, 640), 512, 1024, [8, 16]),  # 20 / 25 * 640 = 512: small and large objects have 20 pixels
        (32, (640, 640), 416, 832, [8, 16]),  # 400, and the next multiple of 32
        (25, (480, 640), 384, 768, [8, 16]),  # of the short side: 20 / 25 * 480
        (18, (640, 640), 640, 1280, [8, 16]),  # 711, but the pictures have 640; 18 pixels are 2.25 cells
        (12, (640, 640), 640, 1280, [4, 8]),  # 1.5 cells of stride 8
        (20, (3000, 2000), 800, 1333, [4, 8]),  # at most 800: 20 * 800 / 2000 = 8 pixels are 1 cell
        (100, (640, 640), 320, 640, [8, 16]),  # 128, but at least 320: 50 pixels, of which 7 cells of 8 are 56
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
    """A fifth of the objects are small, and as many are large: 20.8 and 130 pixels, which are 8.1 cells of 16."""
    config = trained(recipe([32] * 20 + [64] * 60 + [200] * 20, (640, 640)))
    assert (config.model.min_size, config.model.fpn_strides) == ([416], [8, 16, 32])


def test_where_objects_are_pooled():
    """An object with a cell for each bin is pooled from the next map: FPN, eq. 1, with level 4 for stride 16."""
    for bins in (7, 14):
        config = trained(recipe([32] * 50, (640, 640), **{"roi.output_size": [bins, bins]}))
        side = bins * 8  # pixels of the input: a cell of stride 8 for each bin
        assert 2 ** np.floor(4 + np.log2(side / config.roi.canonical_scale)) == 16
        assert 2 ** np.floor(4 + np.log2((side - 1) / config.roi.canonical_scale)) == 8


def test_anchors_are_the_size_of_the_objects():
    config = trained(recipe([32] * 50, (640, 640)))  # 32 * 416 / 640 = 20.8 pixels, square, in the corner
    assert min(abs(side - 21) for of_map in config.model.anchors.sizes for side in of_map) <= 1


@pytest.mark.parametrize("start", [{}, {"experiment": "finetune_small"}])
def test_what_was_given_stays_and_nothing_else_is_said(start):
    """Besides what is derived, the arguments are those that differ from the recipe; all of them reach the training."""
    given = {
        "data.root": "a b/${c}",
        "model.fpn_channels": 96,
        "model.weights": "w.pth",
        "augment.vertical_flip": 0.5,
        "optim.lr": 1e-3,
    }
    found = recipe(
        [32] * 50, (640, 640), **start, **given, **{"model.image_mean": [0.5, 0.25, 0.125], "data.keep_empty": False}
    )
    config = trained(found)
    assert (config.data.root, config.model.weights, config.data.keep_empty) == ("a b/${c}", "w.pth", False)
    assert (config.augment.vertical_flip, config.optim.lr) == (0.5, 1e-3)
    assert config.model.image_mean == [0.5, 0.25, 0.125]
    assert config.model.fpn_channels == 96  # not the 64 of a larger input
    assert config.model.norm == "frozen"  # of the recipe
    derived = {"model.min_size", "model.max_size", "model.anchors.sizes", "model.anchors.aspect_ratios",
               "model.trainable_stages", "data.batch_size", "optim.base_batch", "trainer.max_steps",
               "trainer.eval_every"}  # fmt: skip
    keys = {argument.partition("=")[0] for argument in found.arguments}
    assert keys - derived == {"experiment", "model.image_mean", *given, "data.keep_empty"}


# Objects of 32 pixels make 416 x 416 of 640 x 640, with half of the cost for each pixel; objects of 90 pixels 320 x 426
# of 480 x 640, as in the recipe; objects of 12 pixels 640 x 640, where maps of stride 4 double the halved cost.
@pytest.mark.parametrize(
    ("side", "size", "images", "batch", "images_seen"),
    [
        (32, (640, 640), 5000, 4, 2 * INPUT / 416**2),
        (32, (640, 640), 5000, 2, 2 * INPUT / 416**2),
        (90, (480, 640), 5000, 4, INPUT / (320 * 426)),
        (12, (640, 640), 5000, 4, INPUT / 640**2),
        (32, (640, 640), 40, 4, 24 * 40),  # 24 epochs
        (32, (640, 640), 8, 4, 800),  # 24 epochs are 192 images: 800 at least
    ],
)
def test_length(side, size, images, batch, images_seen):
    found = recipe([side] * 50, size, images, **{"experiment": "finetune_small", "data.batch_size": batch})
    config = trained(found)
    assert config.trainer.max_steps == pytest.approx(images_seen / batch, abs=1)
    assert config.data.batch_size == batch

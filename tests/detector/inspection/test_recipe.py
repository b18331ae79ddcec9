"""The training that inspect_data derives from the boxes, by hand: every expected number is worked out in a comment."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from detector.config.commands import configs_folder
from detector.config.composition import compose
from detector.config.configure import configure
from detector.config.schema import Config, parse, to_dict
from detector.exceptions import WeightsError
from detector.inspection.anchor_advice import AnchorStudy
from detector.inspection.recipe import INPUT, derive, fit_length, fit_maps, fit_size
from detector.training.length import check_length
from detector.training.optimiser import images_per_step, scaled_lr

BASE = configure(Config, {"experiment": "finetune_small"})


def study(sides, size, model=BASE.model, height=1.0):
    """Objects of ``sides`` pixels, anywhere in images of ``size`` (height, width); ``height`` is that of 1 wide."""
    extent = np.outer(sides, [height**-0.5, height**0.5])
    corner = np.random.default_rng(0).uniform(0, 1, extent.shape) * (np.array(size)[::-1] - extent)
    boxes = np.concatenate([corner, corner + extent], axis=1)
    return AnchorStudy(boxes, np.tile(size, (len(boxes), 1)), model)


def fitted(sides, size):
    """The model with an input and maps for square objects of ``sides`` pixels."""
    model = fit_size(study(sides, size), BASE.model)[0]
    return fit_maps(study(sides, size, model), BASE.roi)[0]


def trained(height=1.0, images=300, **keys):
    """What ``scripts/train.py`` makes of the arguments for objects of 32 pixels, inspected with ``keys``; and these."""
    boxes, sizes = study([32] * 50, (640, 640), height=height), np.tile((640, 640), (images, 1))
    found = derive(configure(Config, keys), boxes, sizes, list(keys))
    return parse(compose([configs_folder()], "train", found.arguments)), found.arguments


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
    model = fitted([side] * 50, size)
    assert (model.min_size, model.max_size, model.fpn_strides) == ([input_side], long, strides)


def test_large_objects_have_a_coarse_map():
    """A fifth of the objects are small, and as many are large: 20.8 and 130 pixels, which are 8.1 cells of 16."""
    model = fitted([32] * 20 + [64] * 60 + [200] * 20, (640, 640))
    assert (model.min_size, model.fpn_strides) == ([416], [8, 16, 32])


@pytest.mark.parametrize("bins", [7, 14])
def test_where_objects_are_pooled(bins):
    """An object with a cell for each bin is pooled from the next map: FPN, eq. 1, with level 4 for stride 16."""
    config, _ = trained(experiment="finetune_small", **{"roi.output_size": [bins, bins]})
    side = bins * 8  # pixels of the input: a cell of stride 8 for each bin
    assert 2 ** np.floor(4 + np.log2(side / config.roi.canonical_scale)) == 16
    assert 2 ** np.floor(4 + np.log2((side - 1) / config.roi.canonical_scale)) == 8


def test_anchors_have_the_shape_of_the_objects():
    """An anchor of one of the usual ratios has an IoU of at most 0.31 with them, by hand: half as high as wide."""
    config, _ = trained(height=1 / 9, experiment="finetune_small")
    assert config.model.anchors.aspect_ratios == [0.11]
    assert [len(of_map) for of_map in config.model.anchors.sizes] == [2, 2]


@pytest.mark.parametrize("start", [{"data": "coco"}, {"experiment": "finetune_small"}])
def test_what_was_given_stays_and_nothing_else_is_said(start):
    """Besides what is derived, the arguments are those that differ from the recipe; all of them reach the training."""
    given = {"data.root": "a b/${c}", "model.fpn_channels": 96, "model.weights": "w.pth", "augment.vertical_flip": 0.5,
             "optim.lr": 1e-3, "model.image_mean": [0.5, 0.25, 0.125], "data.keep_empty": False}  # fmt: skip
    config, arguments = trained(**start, **given)
    assert (config.data.root, config.model.weights, config.data.keep_empty) == ("a b/${c}", "w.pth", False)
    assert (config.augment.vertical_flip, config.optim.lr) == (0.5, 1e-3)
    assert config.model.image_mean == [0.5, 0.25, 0.125]
    assert config.model.fpn_channels == 96  # not the 64 of a larger input
    assert config.model.norm == "frozen"  # of the recipe
    derived = {"model.min_size", "model.max_size", "model.anchors.sizes", "model.anchors.aspect_ratios",
               "model.trainable_stages", "trainer.max_steps",
               "trainer.eval_every"}  # fmt: skip
    assert {argument.partition("=")[0] for argument in arguments} - derived == {"experiment", *given}


def test_a_dict_is_one_value():
    config, _ = trained(data="coco", **{"model.class_map": {"red light": "light", "pole": None}})
    assert config.model.class_map == {"red light": "light", "pole": None}
    config, _ = trained(data="coco", **{"model.weights": "none", "optim.name": {"_target_": "torch.optim.Adam"}})
    assert config.optim.name == {"_target_": "torch.optim.Adam"}


def test_what_the_recipe_says_anyway_is_given_too():
    """Where nothing is given, an input of 416 pixels brings 64 channels, two images a step and a rate of 0.0007."""
    given = {"data.batch_size": 4, "optim.lr": 0.0005, "model.fpn_channels": 128, "model.trainable_stages": 5}
    config, _ = trained(experiment="finetune_small", **given)
    assert (config.data.batch_size, config.optim.lr, config.optim.base_batch) == (4, 0.0005, 4)
    assert (config.model.fpn_channels, config.model.trainable_stages) == (128, 5)
    # Nothing saves: INPUT / 416^2 = 1444.5 images, in steps of four.
    assert config.trainer.max_steps == 362
    config, _ = trained(experiment="finetune_small")
    assert (config.data.batch_size, config.optim.lr, config.model.fpn_channels) == (2, 0.0007, 64)
    assert config.trainer.max_steps == 1445  # twice the images in steps of two


@pytest.mark.parametrize(
    ("given", "highest"),
    [
        ({}, 0.0007),
        ({"data.batch_size": 4, "optim.lr": 0.0005}, 0.0005),
        ({"optim.lr": 0.001}, 0.001),
        ({"data.batch_size": 16}, 0.001),  # 0.0005 for four images, by the square root
    ],
)
def test_the_rate_is_for_the_batch(given, highest):
    config, _ = trained(data="coco", **given)
    assert scaled_lr(config.optim, images_per_step(config)) == pytest.approx(highest)


def test_keys_that_would_be_derived_stay_if_given():
    given = {"model.min_size": [352], "model.fpn_strides": [4, 8, 16], "roi.canonical_scale": 100, "logger.csv": False}
    config, _ = trained(data="coco", **given)
    assert (config.model.min_size, config.model.fpn_strides) == ([352], [4, 8, 16])
    assert (config.roi.canonical_scale, config.logger.csv) == (100, False)
    assert len(config.model.anchors.sizes) == 3
    anchors = [[16.0], [32.0], [64.0], [128.0], [256.0]]
    config, _ = trained(data="coco", **{"model.anchors.sizes": anchors})
    assert (config.model.anchors.sizes, len(config.model.fpn_strides)) == (anchors, 5)


@pytest.mark.parametrize(
    ("given", "lengths"),  # of trainer: epochs, max_steps, eval_epochs, eval_every
    [
        ({"trainer.epochs": 30}, (30, 200, 0, 0)),  # the 200 of the recipe do not count
        ({"trainer.max_steps": 700, "trainer.eval_every": 50}, (0, 700, 0, 50)),
        ({"trainer.eval_epochs": 2}, (0, 1445, 2, 0)),
    ],
)
def test_a_length_that_is_given(given, lengths):
    config, arguments = trained(data="coco", **given)
    found = config.trainer
    assert (found.epochs, found.max_steps, found.eval_epochs, found.eval_every) == lengths
    assert not {"trainer.epochs", "trainer.max_steps"} <= {argument.partition("=")[0] for argument in arguments}


@pytest.mark.parametrize("given", [{"optim.warmup_steps": 400}, {"data.batch_size": 32}])
def test_the_rate_has_risen_before_the_end(given):
    """Twenty images are seen 800 times: in 400 steps of two images, or 25 of 32, of which the recipe warms up in 40."""
    config, _ = trained(data="coco", images=20, **given)
    check_length(config)
    assert config.optim.warmup_steps == config.trainer.max_steps // 2


def test_a_detector_keeps_its_layers_and_anchors():
    choice = {"model": "mobilenet_v3_large_fpn", "model.weights": "COCO_V1"}
    before = configure(Config, {"data": "coco", **choice}).model
    config, _ = trained(data="coco", **choice)
    assert replace(config.model, min_size=before.min_size, max_size=before.max_size) == before
    assert config.model.min_size == [416]


def test_a_run_of_other_shapes_is_named(tmp_path):
    trained_with = to_dict(configure(Config, {"data": "coco", "model.fpn_channels": 48}))
    state = {"roi_heads.box_predictor.cls_score.weight": torch.zeros(2, 4)}
    file = tmp_path / "run.ckpt"
    torch.save({"state_dict": state, "hyper_parameters": {"class_names": ["a"], "config": trained_with}}, file)
    with pytest.raises(WeightsError, match=r"model\.fpn_channels=48$"):
        trained(data="coco", **{"model.weights": str(file)})
    config, _ = trained(data="coco", **{"model.weights": str(file), "model.fpn_channels": 48})
    assert config.model.fpn_channels == 48


def test_random_weights_are_not_frozen():
    config, _ = trained(data="coco", **{"model.weights": "none"})
    assert config.model.trainable_stages == 5


# A pixel with few channels costs half, one with maps of stride 4 twice as much: 2 * INPUT and INPUT pixels.
@pytest.mark.parametrize(
    ("strides", "size", "images", "batch", "cheaper", "seen"),
    [
        ([8, 16], (640, 640), 5000, 2, False, INPUT / 320**2),  # 320 x 320 in the recipe
        ([8, 16], (640, 640), 5000, 4, True, 2 * INPUT / 320**2),
        ([8, 16], (480, 640), 5000, 4, False, INPUT / (320 * 426)),
        ([4, 8], (640, 640), 5000, 2, True, INPUT / 320**2),
        ([8, 16], (640, 640), 40, 2, False, 24 * 40),  # 24 epochs
        ([8, 16], (640, 640), 8, 2, False, 800),  # 24 epochs are 192 images: 800 at least
    ],
)
def test_length(strides, size, images, batch, cheaper, seen):
    sizes = np.array([*[size] * (images - 1), (0, 0)])  # one whose size the file does not say
    saving = {"fpn_channels": 64, "trainable_stages": 2} if cheaper else {}
    steps, _ = fit_length(sizes, replace(BASE.model, fpn_strides=strides, **saving), batch)
    assert steps == pytest.approx(seen / batch, abs=1)

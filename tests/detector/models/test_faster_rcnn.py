"""The detector: every model with every operator, the tutorial's model, precision, and wrong configurations."""

from dataclasses import replace

import pytest
import torch
from torchvision.models import mobilenet_v2
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from detector.config.commands import configs_folder
from detector.config.composition import compose
from detector.config.defaults import default
from detector.config.schema import AnchorConfig, ModelConfig, RoiConfig, parse
from detector.exceptions import ConfigError
from detector.models.faster_rcnn import build_model

ROIS = {
    "align": {},
    "align_aligned": {"aligned": True},
    "align_max": {"mode": "max"},
    "pool": {"kind": "pool"},
    "prroi": {"kind": "prroi"},
    "torchvision_align": {"kind": "torchvision_align"},
    "torchvision_pool": {"kind": "torchvision_pool"},
}
LOSSES = {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}


def small(name="fpn", **keys):
    """A narrow model for images of 64 pixels."""
    composed = compose([configs_folder()], "train", [f"model={name}", "~tuning@_global_"])
    config = replace(parse(composed).model, **{"fpn_channels": 16, "min_size": [64], "max_size": 128, **keys})
    config.head.width, config.head.batch_size_per_image = 16, 16
    config.rpn.post_nms_top_n_train = config.rpn.post_nms_top_n_test = 20
    sizes = [8.0, 16.0, 32.0, 64.0, 128.0]
    config.anchors.sizes = [[s] for s in sizes[-len(config.fpn_strides) :]] if config.name == "fpn" else [sizes]
    return config


def batch():
    """Two images of different shape; the second has no object."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(3, 64, 80, generator=generator), torch.rand(3, 70, 64, generator=generator)]
    boxes = torch.tensor([[5.0, 8, 30, 40], [40, 20, 70, 60]])
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    return images, [{"boxes": boxes, "labels": torch.tensor([1, 2])}, empty]


@pytest.mark.parametrize("roi", ROIS)
@pytest.mark.parametrize("name", ["fpn", "fpn_lite", "c4", "c5"])
def test_every_model_with_every_operator(name, roi):
    model = build_model(small(name), default(RoiConfig, **ROIS[roi]), 3)
    images, targets = batch()
    losses = model(images, targets)
    assert losses.keys() == LOSSES
    sum(losses.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    for image, found in zip(images, model.eval()(images), strict=True):
        height, width = image.shape[-2:]
        assert found["boxes"].shape == (len(found["scores"]), 4)
        assert ((found["boxes"] >= 0) & (found["boxes"] <= torch.tensor([width, height] * 2))).all()
        assert ((found["labels"] >= 1) & (found["labels"] <= 2)).all()
        assert (found["scores"].diff() <= 0).all()


@pytest.mark.parametrize("norm", ["batch", "frozen", "sync", "group"])
@pytest.mark.parametrize("layout", [True, False])
def test_every_norm_and_layout(norm, layout):
    model = build_model(small(norm=norm, channels_last=layout), default(RoiConfig, kind="torchvision_align"), 3)
    seen = []
    model.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    losses = model(*batch())
    assert all(torch.isfinite(value) for value in losses.values())
    assert seen[0].is_contiguous(memory_format=torch.channels_last if layout else torch.contiguous_format)
    weight = model.backbone.fpn.layer_blocks[0][0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == layout


def test_initial_weights_do_not_depend_on_the_operator():
    states = []
    for keys in ROIS.values():
        torch.manual_seed(2)
        states.append(build_model(small(), default(RoiConfig, **keys), 3).state_dict())
    for state in states[1:]:
        assert state.keys() == states[0].keys()
        assert all(torch.equal(state[key], value) for key, value in states[0].items())


@pytest.mark.parametrize(
    ("roi", "width"), [("align", 32), pytest.param("torchvision_align", 1024, marks=pytest.mark.slow)]
)
def test_c5_is_the_model_of_the_tutorial(roi, width):
    """The same losses and detections as torchvision's FasterRCNN, put together as its documentation does.

    In float64, so that no two nearly equal scores of random weights change places. 1024 is the tutorial's width.
    """
    backbone = mobilenet_v2().features
    backbone.out_channels = 1280
    torch.manual_seed(0)
    reference = FasterRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(sizes=((32, 64, 128, 256, 512),), aspect_ratios=((0.5, 1.0, 2.0),)),
        box_roi_pool=MultiScaleRoIAlign(featmap_names=["0"], output_size=7, sampling_ratio=2),
        box_head=TwoMLPHead(1280 * 7 * 7, width),
        box_predictor=FastRCNNPredictor(width, 3),
        min_size=96,
        max_size=200,
    ).double()
    config = default(ModelConfig, name="c5", min_size=[96], max_size=200, channels_last=False)
    config.anchors.sizes = [[32.0, 64.0, 128.0, 256.0, 512.0]]
    config.head.width = width
    config.rpn.post_nms_top_n_train = 2000  # torchvision's default; ours is that of detectron2
    ours = build_model(config, default(RoiConfig, kind=roi), 3).double()
    ours.load_state_dict(reference.state_dict())

    images, targets = batch()
    images = [image.double() for image in images]
    torch.manual_seed(1)
    expected = reference(images, targets)
    torch.manual_seed(1)
    losses = ours(images, targets)
    for name in LOSSES:
        torch.testing.assert_close(losses[name], expected[name], rtol=1e-9, atol=1e-9)
    for a, b in zip(ours.eval()(images), reference.eval()(images), strict=True):
        assert len(a["scores"]) > 0
        for key in ("boxes", "labels", "scores"):
            torch.testing.assert_close(a[key], b[key], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["fpn", "c5"])
def test_coordinates_and_losses_stay_float32_under_autocast(name):
    model = build_model(small(name), default(RoiConfig, kind="torchvision_align"), 3)
    seen = {}
    model.rpn.anchor_generator.register_forward_hook(lambda m, a, out: seen.update(anchors=out[0]))
    model.rpn.head.register_forward_hook(lambda m, a, out: seen.update(objectness=out[0][0], offsets=out[1][0]))
    model.roi_heads.box_predictor.register_forward_hook(lambda m, a, out: seen.update(scores=out[0], boxes=out[1]))
    model.roi_heads.box_head.register_forward_hook(lambda m, a, out: seen.update(features=out))
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(*batch())
    assert seen.pop("features").dtype == torch.bfloat16  # autocast is on
    assert {value.dtype for value in [*seen.values(), *losses.values()]} == {torch.float32}
    sum(losses.values()).backward()


def test_anchors_of_a_large_image_are_exact_under_autocast():
    """In bfloat16 an anchor centred on x = 772 would be at 772 rounded to a multiple of 4."""
    model = build_model(small("c4"), default(RoiConfig, kind="torchvision_align"), 3)
    images = ImageList(torch.zeros(1, 3, 64, 800), [(64, 800)])
    wide = model.rpn.anchor_generator(images, [torch.zeros(1, 96, 4, 50)])[0]
    short = model.rpn.anchor_generator(images, [torch.zeros(1, 96, 4, 50, dtype=torch.bfloat16)])[0]
    assert torch.equal(wide, short)
    centres = (short[:, 0] + short[:, 2]) / 2
    assert set(centres.tolist()) == {16.0 * i for i in range(50)}


def test_configured_numbers_arrive():
    config = small("c4")
    for part, prefix in ((config.rpn, 1), (config.head, 2)):
        for i, key in enumerate(vars(part)):
            value = getattr(part, key)
            if key.startswith("conv_"):  # of other layers
                continue
            setattr(part, key, 0.01 * (prefix * 20 + i) if isinstance(value, float) else prefix * 20 + i)
    config.rpn.bg_iou_thresh = config.head.bg_iou_thresh = 0.05
    config.image_mean = [0.1, 0.2, 0.3]
    model = build_model(config, default(RoiConfig, kind="torchvision_align", output_size=[3, 5]), 7)
    rpn, head = model.rpn, model.roi_heads
    assert rpn._pre_nms_top_n == {"training": config.rpn.pre_nms_top_n_train, "testing": config.rpn.pre_nms_top_n_test}
    assert rpn._post_nms_top_n == {
        "training": config.rpn.post_nms_top_n_train,
        "testing": config.rpn.post_nms_top_n_test,
    }
    assert (rpn.nms_thresh, rpn.score_thresh) == (config.rpn.nms_thresh, config.rpn.score_thresh)
    assert rpn.proposal_matcher.high_threshold == config.rpn.fg_iou_thresh
    assert rpn.proposal_matcher.low_threshold == config.rpn.bg_iou_thresh
    assert rpn.fg_bg_sampler.batch_size_per_image == config.rpn.batch_size_per_image
    assert rpn.fg_bg_sampler.positive_fraction == config.rpn.positive_fraction
    assert (head.score_thresh, head.nms_thresh) == (config.head.score_thresh, config.head.nms_thresh)
    assert head.detections_per_img == config.head.detections_per_image
    assert head.proposal_matcher.high_threshold == config.head.fg_iou_thresh
    assert head.proposal_matcher.low_threshold == config.head.bg_iou_thresh
    assert head.fg_bg_sampler.batch_size_per_image == config.head.batch_size_per_image
    assert head.fg_bg_sampler.positive_fraction == config.head.positive_fraction
    assert head.box_head.fc6.in_features == 96 * 3 * 5
    assert head.box_head.fc7.out_features == config.head.width
    assert head.box_predictor.cls_score.out_features == 7
    assert model.transform.min_size == [64]
    assert model.transform.max_size == 128
    assert model.transform.image_mean == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: setattr(c.anchors, "sizes", [[8.0]]), r"model=fpn has 5 feature maps \(strides 4, 8, .*not 1"),
        (lambda c: setattr(c, "fpn_strides", [8, 16]), r"model=fpn has 2 feature maps \(strides 8, 16\), .*not 5"),
        (lambda c: setattr(c, "fpn_strides", [4, 16]), r"model\.fpn_strides=\[4, 16\]: give neighbours"),
        (lambda c: setattr(c.anchors, "sizes", [[8.0]] * 4 + [[8.0, 9.0]]), "the same number of sizes"),
        (lambda c: setattr(c.anchors, "aspect_ratios", []), "aspect_ratios"),
        # 100 x 1 pixels: half of 1 is rounded to 0.
        (lambda c: setattr(c, "anchors", AnchorConfig(sizes=[[10.0]] * 5, aspect_ratios=[1.0, 0.01])), r"of size 10 "),
        (lambda c: setattr(c, "image_mean", [0.5]), r"model\.image_mean=\[0\.5\]: give three numbers"),
        (lambda c: setattr(c, "min_size", []), r"model\.min_size"),
        (lambda c: setattr(c.rpn, "bg_iou_thresh", 0.9), r"model\.rpn\.bg_iou_thresh=0\.9: must not be above"),
        (lambda c: setattr(c.head, "bg_iou_thresh", 0.9), r"model\.head\.bg_iou_thresh=0\.9: must not be above"),
    ],
)
def test_values_that_do_not_go_together(change, message):
    config = small()
    change(config)
    with pytest.raises(ConfigError, match=message):
        build_model(config, default(RoiConfig, kind="torchvision_align"), 3)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kind": "pool", "aligned": True}, r"roi\.aligned=true: roi\.kind=pool has no such choice"),
        ({"kind": "torchvision_align", "mode": "max"}, r"roi\.mode=max: roi\.kind=torchvision_align"),
        ({"output_size": [7]}, r"roi\.output_size=\[7\]: give two numbers"),
    ],
)
def test_parameters_that_an_operator_does_not_have(keys, message):
    with pytest.raises(ConfigError, match=message):
        build_model(small(), default(RoiConfig, **keys), 3)

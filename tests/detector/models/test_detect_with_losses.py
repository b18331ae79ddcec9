"""Detections and losses of one pass, against the model in training mode and against torchvision's own detector."""

import pytest
import torch
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from detector.config.defaults import parse_partial
from detector.config.schema import Config
from detector.models.faster_rcnn import build_model, detect_with_losses

ALL = 10**6  # a sample of so many is all there are: nothing is drawn


@pytest.fixture
def batch():
    """Two images of different sizes; one has two boxes, the other none."""
    torch.manual_seed(3)
    images = [torch.rand(3, 64, 80), torch.rand(3, 70, 64)]
    boxes = torch.tensor([[4.0, 6.0, 40.0, 44.0], [30.0, 10.0, 70.0, 50.0]])
    targets = [{"boxes": boxes, "labels": torch.tensor([1, 2])},
               {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}]  # fmt: skip
    return images, targets


def make(sample, **model):
    torch.manual_seed(0)
    rpn = {"batch_size_per_image": sample, "pre_nms_top_n_train": 60, "post_nms_top_n_train": 40,
           "pre_nms_top_n_test": 30, "post_nms_top_n_test": 20}  # fmt: skip
    small = {"min_size": [64], "fpn_channels": 8, "weights": "none", "rpn": rpn,
             "head": {"width": 16, "batch_size_per_image": sample, "score_thresh": 0.0}, **model}  # fmt: skip
    config = parse_partial({"model": small}, Config)
    return build_model(config.model, config.roi, num_classes=3)


def torchvisions(model):
    """torchvision's classes around the same layers."""
    rpn, heads, old = model.rpn, model.roi_heads, model.transform
    settings = {"fg_iou_thresh": 0.7, "bg_iou_thresh": 0.3, "batch_size_per_image": ALL, "positive_fraction": 0.5}
    top = {name: {"training": getattr(rpn, f"_{name}")["training"], "testing": 1} for name in
           ("pre_nms_top_n", "post_nms_top_n")}  # fmt: skip
    other = FasterRCNN(model.backbone, box_head=heads.box_head, box_predictor=heads.box_predictor,
                       rpn_anchor_generator=rpn.anchor_generator, box_roi_pool=heads.box_roi_pool)  # fmt: skip
    other.rpn = RegionProposalNetwork(rpn.anchor_generator, rpn.head, **settings, **top, nms_thresh=0.7)
    other.roi_heads = RoIHeads(heads.box_roi_pool, heads.box_head, heads.box_predictor, 0.5, 0.5, ALL, 0.25, None,
                               0.05, 0.5, 100)  # fmt: skip
    other.transform = GeneralizedRCNNTransform(old.min_size, old.max_size, old.image_mean, old.image_std)
    return other.train()


def test_losses_are_those_of_training_and_of_torchvision(batch):
    model = make(ALL, norm="frozen")
    expected = model.train()(*batch)
    torchvision = torchvisions(model)(*batch)
    model.eval()
    with torch.no_grad():
        found, losses = detect_with_losses(model, *batch, seed=1)
        alone = model(batch[0])
    assert losses.keys() == expected.keys()
    for name in expected:
        assert losses[name].item() == expected[name].item() > 0
        assert losses[name].item() == pytest.approx(torchvision[name].item(), rel=1e-5)
    for a, b in zip(found, alone, strict=True):
        assert len(a["boxes"]) > 0
        assert all(torch.equal(a[key], b[key]) for key in ("boxes", "labels", "scores"))


def test_the_sample_depends_on_the_seed_only(batch):
    model = make(8, norm="batch").eval()
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    before = torch.get_rng_state()
    with torch.no_grad():
        first, again, other = ([v.item() for v in detect_with_losses(model, *batch, seed)[1].values()]
                               for seed in (5, 5, 6))  # fmt: skip
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in model.named_buffers())
    assert not any(module.training for module in model.modules())


def test_not_in_training_mode(batch):
    with pytest.raises(RuntimeError, match="training mode"):
        detect_with_losses(make(8), *batch, seed=0)

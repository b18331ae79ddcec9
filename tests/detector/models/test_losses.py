"""The losses against torchvision's, against boxes computed the long way, and by hand."""

import math

import pytest
import torch
from torch.nn import functional
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import generalized_box_iou

from detector.config.defaults import default
from detector.config.schema import HeadConfig, ModelConfig, RoiConfig, RpnConfig
from detector.models.faster_rcnn import build_model
from detector.models.heads import BoxPredictor, RegionHeads
from detector.models.losses import box_loss, classification_loss
from detector.models.proposals import ProposalNetwork


def heads(**keys):
    return RegionHeads(default(HeadConfig, **keys), *[torch.nn.Identity()] * 3)


def regions(count=40, classes=4):
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(classes, (count,), generator=generator)
    logits = torch.randn(count, classes, generator=generator)
    offsets = torch.randn(count, 4 * classes, generator=generator)
    return logits, offsets, labels, torch.randn(count, 4, generator=generator)


def test_default_losses_of_regions_are_torchvisions():
    logits, offsets, labels, true = regions()
    losses = heads().compute_losses(logits, offsets, labels, true)
    expected = fastrcnn_loss(logits, offsets, [labels[:15], labels[15:]], [true[:15], true[15:]])
    assert (losses["loss_classifier"], losses["loss_box_reg"]) == expected


def test_default_losses_of_anchors_are_torchvisions():
    generator = torch.Generator().manual_seed(1)
    labels = [torch.randint(-1, 2, (300,), generator=generator).float() for _ in range(2)]
    objectness, deltas = torch.randn(600, 1, generator=generator), torch.randn(600, 4, generator=generator)
    targets = list(torch.randn(600, 4, generator=generator).split(300))
    network = ProposalNetwork(default(RpnConfig, batch_size_per_image=64), None, None)
    results = []
    for function in (network.compute_loss, lambda *a: RegionProposalNetwork.compute_loss(network, *a)):
        torch.manual_seed(0)
        results.append(function(objectness, deltas, labels, targets))
    assert results[0] == results[1]


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_giou_is_that_of_the_boxes(weights):
    """Whatever boxes the offsets refer to."""
    coder = BoxCoder(weights)
    corners = torch.rand(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 500
    sides = torch.rand(3, 50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 100 + 5
    reference, predicted, true = (torch.cat([corners + 3 * i, corners + 3 * i + s], 1) for i, s in enumerate(sides))
    offsets, targets = (coder.encode_single(boxes, reference) for boxes in (predicted, true))
    expected = (1 - generalized_box_iou(predicted, true).diagonal()).sum()
    assert box_loss("giou", offsets, targets, coder).item() == pytest.approx(expected.item(), abs=1e-5)


def test_giou_by_hand():
    """Unit squares side by side: no intersection, union 2, hull 2: GIoU 0. With a gap of one between: -1/3."""
    coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
    offsets = torch.tensor([[1.0, 0, 0, 0], [2.0, 0, 0, 0]])
    assert box_loss("giou", offsets, torch.zeros(2, 4), coder).item() == pytest.approx(1 + 4 / 3, abs=1e-5)


def test_no_object_is_no_loss():
    logits, offsets, labels, true = regions()
    offsets.requires_grad_()
    for kind in ("smooth_l1", "giou"):
        loss = heads(box_loss=kind).compute_losses(logits, offsets, torch.zeros_like(labels), true)["loss_box_reg"]
        loss.backward()
        assert loss == 0
        assert (offsets.grad == 0).all()


def test_weight_of_the_box_loss():
    logits, offsets, labels, true = regions()
    one, ten = (
        heads(box_loss="giou", box_loss_weight=w).compute_losses(logits, offsets, labels, true) for w in (1.0, 10.0)
    )
    assert ten["loss_box_reg"].item() == pytest.approx(10 * one["loss_box_reg"].item())
    assert ten["loss_classifier"] == one["loss_classifier"]


def test_focal_by_hand():
    """Probability 1/4 for the true class of one, 1/2 of the other."""
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
    expected = (0.75**2 * math.log(4) + 0.5**2 * math.log(2)) / 2
    assert classification_loss("focal", logits, torch.tensor([0, 0]), 2.0).item() == pytest.approx(expected)


def test_focal_without_focus_is_cross_entropy():
    logits, _, labels, _ = regions()
    got = classification_loss("focal", logits, labels, 0.0)
    torch.testing.assert_close(got, functional.cross_entropy(logits, labels))


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("margin", [400.0, 60.0, 20.0, 17.0, 1.0])
def test_focal_gradient_where_the_class_is_certain(margin, gamma):
    """Against float64, which resolves 1 - p where float32 rounds it to 0: d/dl (1 - exp(-l)) ** gamma * l by hand."""
    logits = torch.tensor([[margin, 0.0]], requires_grad=True)
    classification_loss("focal", logits, torch.tensor([0]), gamma).backward()
    loss = math.log1p(math.exp(-margin))
    wrong = -math.expm1(-loss)
    by_loss = wrong**gamma + (gamma * wrong ** (gamma - 1) * (1 - wrong) * loss if wrong else 0)
    expected = -wrong * by_loss
    assert logits.grad[0, 0].item() == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_agnostic_predictor_has_one_box():
    predictor = BoxPredictor(8, 5, class_agnostic=True)
    logits, offsets = predictor(torch.randn(3, 8))
    assert logits.shape == (3, 5)
    assert predictor.bbox_pred.out_features == 4
    assert (offsets.view(3, 5, 4) == offsets[:, None, :4]).all()


@pytest.mark.parametrize(
    "keys",
    [{"class_agnostic": True}, {"class_loss": "focal"}, {"box_loss": "giou", "box_loss_weight": 5.0}],
    ids=lambda keys: next(iter(keys)),
)
def test_model_with_each_choice(keys):
    config = default(ModelConfig, name="fpn", fpn_channels=16, min_size=[64])
    config.anchors.sizes = [[8.0], [16.0], [32.0], [64.0], [128.0]]
    config.head = default(HeadConfig, width=16, **keys)
    config.rpn.box_loss = keys.get("box_loss", "smooth_l1")
    model = build_model(config, default(RoiConfig), 3)
    target = {"boxes": torch.tensor([[5.0, 8, 30, 40]]), "labels": torch.tensor([2])}
    sum(model([torch.rand(3, 64, 64)], [target]).values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert model.eval()([torch.rand(3, 64, 64)])[0].keys() == {"boxes", "labels", "scores"}

"""The detectors that torchvision builds, beside torchvision's own builders: weights, detections and losses."""

import dataclasses
import json
from functools import lru_cache
from pathlib import Path

import hydra
import pytest
import torch
from torchvision.models import detection, get_model_weights
from torchvision.models._api import WeightsEnum
from torchvision.ops import FrozenBatchNorm2d

from detector.config.defaults import default
from detector.config.schema import ExportConfig, parse
from detector.exceptions import WeightsError
from detector.export.export_model import export
from detector.models.backbone import build_backbone
from detector.models.checkpoint import hyper_parameters
from detector.models.faster_rcnn import build_model
from detector.models.initial.build import build_initialised
from detector.models.poolers import build_pooler

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
STRIDES = {  # of the maps that regions are pooled from
    "resnet50_fpn": [4, 8, 16, 32],
    "resnet50_fpn_v2": [4, 8, 16, 32],
    "mobilenet_v3_large_fpn": [32, 32],
    "mobilenet_v3_large_320_fpn": [32, 32],
}
SMALL = {"min_size": 64, "max_size": 96}


def composed(name, *arguments):
    """The choice of ``model`` as it is; ``data`` freezes batch norm, for small batches."""
    if name.endswith("v2"):
        arguments = ("model.norm=batch", *arguments)
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return parse(hydra.compose("train", overrides=[f"model={name}", "data=coco2017", *arguments]))


def theirs(name, **keys):
    return getattr(detection, f"fasterrcnn_{name}")(**{"weights_backbone": None, **keys})


def batch():
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(3, *size, generator=generator, dtype=torch.float64) for size in ((64, 80), (70, 60))]
    boxes = [torch.tensor([[5.0, 8, 30, 40], [40, 20, 70, 60]]), torch.tensor([[2.0, 3, 50, 66]])]
    return images, [{"boxes": b.double(), "labels": torch.tensor([17, 90][: len(b)])} for b in boxes]


@lru_cache
def trained(name):
    """Weights of torchvision's detector as of a trained one: the statistics of its norms are those of images."""
    torch.manual_seed(0)
    model = theirs(name, rpn_post_nms_top_n_train=16, **SMALL).double()
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.momentum = None
            for parameter in norm.parameters():
                torch.nn.init.uniform_(parameter, 0.5, 1.0)
    with torch.no_grad():
        model(*batch())
        model.roi_heads.box_predictor.cls_score.weight *= 40  # else no class is likely
    return model.float().state_dict()


def small(config, state):
    """Our detector with the weights ``state``, for images of 64 pixels; ``config`` is then that of its checkpoint."""
    config.model = dataclasses.replace(config.model, weights="none", min_size=[64], max_size=96)
    model = build_model(config.model, config.roi, 91)
    model.load_state_dict(state)
    return model


def norms(model):
    """Type, eps and momentum of every norm, by its place."""
    kinds = (torch.nn.modules.batchnorm._BatchNorm, FrozenBatchNorm2d, torch.nn.GroupNorm)
    facts = lambda norm: (type(norm), norm.eps, getattr(norm, "momentum", None))
    return {name: facts(norm) for name, norm in model.named_modules() if isinstance(norm, kinds)}


def numbers(model):
    """Every number of the detector that is no weight."""
    rpn, heads, transform = model.rpn, model.roi_heads, model.transform
    found = {"sizes": rpn.anchor_generator.sizes, "ratios": rpn.anchor_generator.aspect_ratios}
    found |= {"coders": [part.box_coder.weights for part in (rpn, heads)], "min_area": rpn.min_size}
    found |= {key: getattr(rpn, key) for key in ("_pre_nms_top_n", "_post_nms_top_n", "nms_thresh", "score_thresh")}
    found |= {key: getattr(heads, key) for key in ("score_thresh", "nms_thresh", "detections_per_img")}
    for i, part in enumerate((rpn, heads)):
        found[f"sampler{i}"], found[f"matcher{i}"] = vars(part.fg_bg_sampler), vars(part.proposal_matcher)
    pooler = heads.box_roi_pool
    found["pooler"] = [getattr(pooler, key) for key in ("output_size", "sampling_ratio", "canonical_scale")]
    found["min_size"] = list(transform.min_size)
    return found | {key: getattr(transform, key) for key in ("max_size", "image_mean", "image_std", "size_divisible")}


@pytest.mark.parametrize("name", STRIDES)
def test_numbers_and_frozen_weights_are_torchvisions(name, monkeypatch):
    """Those of a start from published weights, with which torchvision freezes the first layers."""
    with torch.device("meta"):  # shapes without content, which cost nothing
        state = theirs(name).state_dict()
        monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, *args, **kwargs: state)
        peer = theirs(name, weights="COCO_V1")
        config = composed(name, "model.weights=COCO_V1")
        config.model.weights = "none"
        ours = build_model(config.model, config.roi, 91)
    assert numbers(ours) == numbers(peer)
    trainable = [{name for name, p in model.named_parameters() if p.requires_grad} for model in (ours, peer)]
    # A deviation: batch norm of layers that are frozen is frozen too, where torchvision's goes on with its statistics.
    assert trainable[0] == trainable[1]


@pytest.mark.parametrize("weights", ["none", "COCO_V1"])
@pytest.mark.parametrize("name", STRIDES)
def test_norms_are_torchvisions(name, weights, monkeypatch):
    """From scratch and of the published weights; data that freeze norm are another matter, and so are frozen layers,
    whose norm is frozen too, where torchvision's goes on with its statistics."""
    with torch.device("meta"):
        state = theirs(name).state_dict()
        monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, *args, **kwargs: state)
        peer = theirs(name, weights=None if weights == "none" else weights)
        config = composed(name, "~tuning@_global_", f"model.weights={weights}", "model.trainable_stages=5")
        config.model.weights = "none"
        ours = build_model(config.model, config.roi, 91)
    found = norms(peer)
    assert norms(ours) == found
    assert len(found) > 40


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if "resnet50" in name else ()) for name in STRIDES]
)
def test_detections_and_losses_are_torchvisions(name, monkeypatch):
    """With our pooler and with theirs. In float64, so that no two nearly equal scores change places."""
    state = trained(name)
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, *args, **kwargs: state)
    peer = theirs(name, weights="COCO_V1", trainable_backbone_layers=5, **SMALL).double()
    config = composed(name, "model.weights=COCO_V1", "model.trainable_stages=5")
    ours = small(config, state).double()
    for model in (ours, peer):  # fewer regions, for speed
        model.rpn._post_nms_top_n = {"training": 16, "testing": 16}
        model.roi_heads.fg_bg_sampler.batch_size_per_image = 8
    images, targets = batch()
    for kind in ("align", "torchvision_align"):
        roi = dataclasses.replace(config.roi, kind=kind)
        ours.roi_heads.box_roi_pool = build_pooler(roi, ours.roi_heads.box_roi_pool.featmap_names, STRIDES[name])
        for a, b in zip(ours.eval()(images), peer.eval()(images), strict=True):
            assert len(b["scores"]) > 5
            for key in ("boxes", "labels", "scores"):
                torch.testing.assert_close(a[key], b[key], rtol=1e-6, atol=1e-6)
        losses = []
        for model in (ours.train(), peer.train()):
            torch.manual_seed(1)
            losses.append(model(images, targets))
        assert losses[0].keys() == losses[1].keys()
        for key, value in losses[1].items():
            assert value > 0
            torch.testing.assert_close(losses[0][key], value, rtol=1e-8, atol=1e-10)


def test_published_weights_by_their_name(monkeypatch):
    """Into a detector of two of COCO's classes, in another order: their rows, and all other weights as they are."""
    name = "mobilenet_v3_large_320_fpn"
    state = trained(name)
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, *args, **kwargs: state)
    built = build_initialised(composed(name, "model.weights=COCO_V1"), ["dog", "person"], [1, 2])
    rows = [0, 18, 1]  # background, and the categories of COCO's files
    found = built.model.state_dict()
    for part, width in (("cls_score", 1), ("bbox_pred", 4)):
        for kind in ("weight", "bias"):
            key = f"roi_heads.box_predictor.{part}.{kind}"
            old = state[key].reshape(91, width, -1)
            assert torch.equal(found.pop(key).reshape(3, width, -1), old[rows])
    assert found.keys() == {key for key in state if "box_predictor" not in key and not key.endswith("_tracked")}
    assert all(torch.equal(value, state[key]) for key, value in found.items())


def test_published_weights_of_no_published_detector():
    with pytest.raises(WeightsError, match=r"model\.weights=COCO_V1: .*model=resnet50_fpn"):
        build_initialised(composed("fpn", "model.weights=COCO_V1"), ["a"], [1])


def test_resnet50_fpn_adds_nothing_to_the_variances_of_its_published_weights():
    """torchvision's `overwrite_eps`; 1e-5 with others. The files of the weights need the key."""
    zero = ["COCO_V1", *(f"{kind}RCNN_ResNet50_FPN_Weights.COCO_V1" for kind in ("Faster", "Mask", "Keypoint"))]
    other = ["imagenet", "KeypointRCNN_ResNet50_FPN_Weights.COCO_LEGACY"]
    for weights, eps in (*((name, 0) for name in zero), *((name, 1e-5) for name in other)):
        model = composed("resnet50_fpn", f"model.weights={weights}").model
        with torch.device("meta"):
            norms = build_backbone(dataclasses.replace(model, weights="none")).module.modules()
        assert {norm.eps for norm in norms if isinstance(norm, FrozenBatchNorm2d)} == {eps}


@pytest.mark.parametrize("name", ["mobilenet_v3_large_fpn", "mobilenet_v3_large_320_fpn"])
def test_mobilenet_with_group_norm_has_no_eps_of_batch_norm(name):
    assert composed(name).model.norm_eps == 1e-5
    assert composed(name, "model.norm=group").model.norm_eps == -1


def test_onnx_and_the_names_of_coco(tmp_path):
    pytest.importorskip("onnxruntime")
    name = "mobilenet_v3_large_320_fpn"
    config = composed(name, "model.weights=COCO_V1")
    state = {f"model.{key}": value for key, value in small(config, trained(name)).state_dict().items()}
    names = get_model_weights(f"fasterrcnn_{name}")["COCO_V1"].meta["categories"][1:]
    facts = hyper_parameters(config, names, range(1, 91))
    torch.save({"state_dict": state, "global_step": 1, "hyper_parameters": facts}, tmp_path / "x.ckpt")
    settings = {"checkpoint": str(tmp_path / "x.ckpt"), "output": str(tmp_path / "out.onnx"), "parity_images": 2}
    written = export(default(ExportConfig, image_size=[64, 96], dynamic=True, **settings))
    assert written.parity["out.onnx"].holds
    assert written.parity["out.onnx"].detections > 4
    assert json.loads(written.files[1].read_text())["class_names"]["17"] == "cat"  # COCO's own number

"""A detector that starts from a trained one: which weights go where, and what is refused."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import DataParallel
from torchvision.models import get_model, mobilenet_v2
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign
from untrained import make_content

from detector.config.defaults import parse_partial
from detector.config.schema import Config
from detector.exceptions import ConfigError, WeightsError
from detector.models.faster_rcnn import build_model
from detector.models.initial import build
from detector.models.initial.build import build_initialised, check_initial
from detector.models.initial.class_rows import match_classes
from detector.models.initial.kinds import InitialDetector
from detector.models.initial.transfer import transfer

PREDICTOR = "roi_heads.box_predictor."
CLASSES, BOXES = f"{PREDICTOR}cls_score", f"{PREDICTOR}bbox_pred"


def start(path, names=("dogs", "bird"), ids=None, keys=None, content=None):
    """The detector for classes ``names`` that starts from ``content``, saved at ``path``."""
    content = content or make_content()
    torch.save(content, path / "old.ckpt")
    model = copy.deepcopy(content["hyper_parameters"]["config"]["model"]) if "hyper_parameters" in content else {}
    model["weights"] = str(path / "old.ckpt")
    for key, value in (keys or {}).items():
        group, _, name = key.rpartition(".")
        (model.setdefault(group, {}) if group else model)[name] = value
    torch.manual_seed(5)
    config = parse_partial({"model": model}, Config)
    return build_initialised(config, names, ids or range(1, len(names) + 1)), config


def old_state():
    return {key.removeprefix("model."): value for key, value in make_content()["state_dict"].items()}


def test_everything_but_the_classes_comes_along(tmp_path):
    built, _ = start(tmp_path)
    old = old_state()
    state = built.model.state_dict()
    assert state.keys() == old.keys()
    assert len(old) > 250
    for key, value in old.items():
        if not key.startswith(PREDICTOR):
            assert torch.equal(state[key], value), key


def test_rows_go_by_name(tmp_path):
    """Old rows: background, cat, dog. New ones: background, dogs (the old dog), bird (random)."""
    built, config = start(tmp_path)
    torch.manual_seed(5)
    fresh = build_model(replace(config.model, weights="none"), config.roi, 3).state_dict()
    old, state = old_state(), built.model.state_dict()
    for kind in ("weight", "bias"):
        classes, boxes = state[f"{CLASSES}.{kind}"], state[f"{BOXES}.{kind}"]
        assert torch.equal(classes[:2], old[f"{CLASSES}.{kind}"][[0, 2]])
        assert torch.equal(boxes[:8], old[f"{BOXES}.{kind}"][[0, 1, 2, 3, 8, 9, 10, 11]])
        assert torch.equal(classes[2], fresh[f"{CLASSES}.{kind}"][2])
        assert torch.equal(boxes[8:], fresh[f"{BOXES}.{kind}"][8:])
    assert built.rows.sources == [[1], []]
    text = "\n".join(built.said)
    assert "checkpoint of a run: fpn with 2 classes" in text
    assert all(words in text for words in ("dog   dogs  by name", "bird  new: random rows", "cat   -     dropped"))


def test_new_classes_can_start_from_the_mean(tmp_path):
    built, _ = start(tmp_path, keys={"new_classes": "mean"})
    old, state = old_state(), built.model.state_dict()
    for kind in ("weight", "bias"):
        rows = old[f"{CLASSES}.{kind}"].double()
        torch.testing.assert_close(state[f"{CLASSES}.{kind}"][2].double(), (rows[1] + rows[2]) / 2)
        rows = old[f"{BOXES}.{kind}"].double()
        torch.testing.assert_close(state[f"{BOXES}.{kind}"][8:].double(), (rows[4:8] + rows[8:]) / 2)


@pytest.mark.parametrize(("old", "used"), [(["a", "", "c"], [1, 3]), (["", "", ""], [1, 2, 3])])
def test_the_mean_is_that_of_classes_with_a_name(tmp_path, old, used):
    """A row without a name is one that no class of COCO has; if no class has a name, all rows count."""
    built, config = start(tmp_path, keys={"new_classes": "mean"})
    state = built.model.state_dict()
    shapes = {key: (4 if CLASSES in key else 16, *value.shape[1:]) for key, value in state.items() if PREDICTOR in key}
    state |= {key: torch.rand(shape) for key, shape in shapes.items()}
    initial = InitialDetector("old.pth", "", state, old, [1, 2, 3])
    transfer(built.model, initial, match_classes(old, ["x", "y"], {}, "old.pth"), config)
    found = built.model.state_dict()
    for key in shapes:
        rows = state[key].double().reshape(4, -1)[used].mean(dim=0)
        for new in found[key].double().reshape(3, -1)[1:]:
            torch.testing.assert_close(new, rows, rtol=1e-6, atol=1e-6)


def test_classes_that_become_one(tmp_path):
    built, _ = start(tmp_path, ["pet"], keys={"class_map": {"cat": "pet", "dog": "pet"}})
    rows = old_state()[f"{CLASSES}.weight"].double()
    torch.testing.assert_close(built.model.state_dict()[f"{CLASSES}.weight"][1].double(), (rows[1] + rows[2]) / 2)


def test_one_box_for_all_classes_comes_along(tmp_path):
    content = make_content()
    content["hyper_parameters"]["config"]["model"]["head"]["class_agnostic"] = True
    for kind in ("weight", "bias"):
        key = f"model.{BOXES}.{kind}"
        content["state_dict"][key] = content["state_dict"][key][:4]
    for names in (["bird"], ["bird", "cat"], ["a", "b", "cat"]):  # four values are also two rows of two, or four of one
        built, _ = start(tmp_path, names, content=content)
        assert torch.equal(built.model.state_dict()[f"{BOXES}.weight"], content["state_dict"][f"model.{BOXES}.weight"])
        with pytest.raises(WeightsError, match=r"bbox_pred\.weight.*class_agnostic=true"):
            start(tmp_path, names, keys={"head.class_agnostic": False}, content=content)


def test_a_detector_of_torchvision_finds_the_same_here(tmp_path):
    """torchvision's own class as its documentation puts it together; its three classes have another order here.

    In float64, so that no two nearly equal scores of random weights change places.
    """
    torch.manual_seed(0)
    backbone = mobilenet_v2().features
    backbone.out_channels = 1280
    theirs = FasterRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(sizes=((32, 64),), aspect_ratios=((0.5, 1.0, 2.0),)),
        box_roi_pool=MultiScaleRoIAlign(featmap_names=["0"], output_size=7, sampling_ratio=2),
        box_head=TwoMLPHead(1280 * 7 * 7, 32),
        box_predictor=FastRCNNPredictor(32, 4),
        min_size=96,
        max_size=200,
    ).eval()
    torch.save({"model": DataParallel(theirs).state_dict(), "epoch": 3}, tmp_path / "old.ckpt")
    model = {"name": "c5", "weights": str(tmp_path / "old.ckpt"), "min_size": [96], "max_size": 200, "norm": "batch",
             "channels_last": False, "class_map": {1: "c", 2: "a", 3: "b"}, "head": {"width": 32},
             "anchors": {"sizes": [[32, 64]]}}  # fmt: skip
    config = parse_partial({"model": model}, Config)
    built = build_initialised(config, ["a", "b", "c"], [1, 2, 3])
    assert "under 'model'" in built.said[0]
    images = [torch.rand(3, 64, 80).double(), torch.rand(3, 70, 64).double()]
    with torch.no_grad():
        pairs = zip(built.model.eval().double()(images), theirs.double()(images), strict=True)
    becomes = torch.tensor([0, 3, 1, 2])
    for found, expected in pairs:
        assert len(set(expected["labels"].tolist())) > 1
        assert torch.equal(found["labels"], becomes[expected["labels"]])
        for key in ("boxes", "scores"):
            torch.testing.assert_close(found[key], expected[key], rtol=1e-6, atol=1e-6)


# ------------------------------------------------------------------------------------- classes that are kept
def test_old_classes_are_kept_behind_the_new_ones(tmp_path):
    """The old cat has the category 3, the old dog 7; 3 is taken by a bird in the new data."""
    built, _ = start(tmp_path, ["bird", "fish"], [1, 3], {"keep_classes": True})
    assert (built.class_names, built.category_ids) == (["bird", "fish", "cat", "dog"], [1, 3, 8, 7])
    weight, old = built.model.state_dict()[f"{CLASSES}.weight"], old_state()[f"{CLASSES}.weight"]
    assert len(weight) == 5
    assert torch.equal(weight[[0, 3, 4]], old)
    assert sum("kept: not in the data" in line for line in built.said) == 2


def test_only_classes_that_the_data_have_not_are_kept(tmp_path):
    built, _ = start(tmp_path, ["Dogs"], keys={"keep_classes": True, "class_map": {"cat": None}})
    assert built.class_names == ["Dogs"]
    with pytest.raises(ConfigError, match=r"keep_classes.*the data have cat too"):
        start(tmp_path, ["cat"], keys={"keep_classes": True, "class_map": {"dog": "cat"}})


# --------------------------------------------------------------------------------------------- what is refused
@pytest.mark.parametrize(
    ("key", "value", "tensor", "remedy", "told"),
    [
        ("fpn_channels", 16, "backbone.fpn.inner_blocks.0.0.weight", "model.fpn_channels=8", True),
        ("head.width", 32, "roi_heads.box_head.fc6.weight", "model.head.width=16", True),
        ("head.class_agnostic", True, f"{BOXES}.weight", "model.head.class_agnostic=false", True),
        ("anchors.aspect_ratios", [1.0], "rpn.head.cls_logits.weight", "model.anchors with 3", True),
        ("norm", "group", "running_mean", "model.norm=batch, frozen or sync", True),
        ("fpn_norm", "group", "backbone.fpn.inner_blocks.0.1.weight", "model.fpn_norm=none", False),
        ("name", "c5", "rpn.head", "model.name=fpn", False),
    ],
)
def test_what_does_not_fit_is_an_error_with_the_remedy(tmp_path, key, value, tensor, remedy, told):
    """A checkpoint of ours knows its configuration, a bare state dict only its shapes."""
    content = make_content()
    keys = {key: value} | ({"anchors.sizes": [[32, 64]]} if value == "c5" else {})
    with pytest.raises(WeightsError) as refused:
        start(tmp_path, keys=keys, content=content)
    message = str(refused.value)
    assert "old.ckpt" in message
    assert tensor in message or key == "norm"
    exact = {"anchors.aspect_ratios": "model.anchors.aspect_ratios=[0.5,1.0,2.0]", "norm": "model.norm=frozen"}
    assert exact.get(key, remedy) in message
    if told:
        given = {"fpn_channels": 8, "min_size": [64], "norm": "frozen", "head.width": 16, **keys}
        with pytest.raises(WeightsError) as refused:
            start(tmp_path, keys=given, content=content["state_dict"])
        assert remedy in str(refused.value)
        assert "conv_depth" not in str(refused.value)


@pytest.mark.parametrize(
    ("builder", "model"),
    [
        ("fasterrcnn_resnet50_fpn_v2", "model=resnet50_fpn_v2"),
        ("fasterrcnn_mobilenet_v3_large_fpn", "model=mobilenet_v3_large_320_fpn or model=mobilenet_v3_large_fpn"),
    ],
)
def test_a_detector_of_torchvision_tells_its_model(tmp_path, builder, model):
    peer = get_model(builder, weights=None, weights_backbone=None, num_classes=3)
    with pytest.raises(WeightsError) as refused:
        start(tmp_path, content=peer.state_dict())
    assert f"What fits: {model}" in str(refused.value)
    assert "model.fpn_channels" not in str(refused.value)


def test_a_detector_of_torchvision_for_its_own_model_tells_the_keys(tmp_path):
    """Two functions build layers of the same names: the one that is configured is not to be changed."""
    peer = get_model("fasterrcnn_mobilenet_v3_large_fpn", weights=None, weights_backbone=None, num_classes=3)
    with pytest.raises(WeightsError) as refused:
        start(tmp_path, keys={"published": "fasterrcnn_mobilenet_v3_large_320_fpn"}, content=peer.state_dict())
    assert "model=" not in str(refused.value)
    assert "model.anchors with 15" in str(refused.value)


def test_another_size_of_pooled_regions(tmp_path):
    content = make_content()
    torch.save(content, tmp_path / "old.ckpt")
    model = {**content["hyper_parameters"]["config"]["model"], "weights": str(tmp_path / "old.ckpt")}
    config = parse_partial({"model": model, "roi": {"output_size": [5, 5]}}, Config)
    with pytest.raises(WeightsError, match=r"fc6\.weight \[16, 392\] instead of \[16, 200\].*roi\.output_size=\[7,7\]"):
        build_initialised(config, ["a"], [1])
    torch.save(content["state_dict"], tmp_path / "old.ckpt")
    with pytest.raises(WeightsError, match=r"What fits: roi\.output_size=\[7,7\]"):
        build_initialised(config, ["a"], [1])


def test_missing_and_surplus_tensors_are_named(tmp_path):
    content = make_content()
    content["state_dict"]["model.roi_heads.extra.weight"] = content["state_dict"].pop("model.rpn.head.cls_logits.bias")
    with pytest.raises(
        WeightsError, match=r"1 missing: rpn\.head\.cls_logits\.bias; 1 unexpected: roi_heads\.extra\.weight"
    ):
        start(tmp_path, content=content)


# ------------------------------------------------------------------------------------------- what is said
@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({}, True),
        ({"published": "fasterrcnn_resnet50_fpn"}, True),
        ({"norm_eps": 0.0}, False),
        ({"norm_eps": 1e-5}, True),
        ({"fpn_norm": "batch"}, False),
        ({"weights": "FasterRCNN_ResNet50_FPN_Weights.COCO_V1"}, True),
        ({"weights": "KeypointRCNN_ResNet50_FPN_Weights.COCO_LEGACY"}, False),
        ({"backbone": "mobilenet_v2"}, False),
    ],
)
def test_a_file_that_may_have_been_trained_without_eps(tmp_path, monkeypatch, keys, told):
    """The network stays the small one here: the note follows from the keys."""
    torch.save({}, tmp_path / "old.pth")
    initial = InitialDetector(keys.get("weights", "old.pth"), "old.pth", {}, [""], [1])
    monkeypatch.setattr(build, "find_detector", lambda config: initial)
    monkeypatch.setattr(build, "build_model", lambda *_: build_model(small.model, small.roi, 2))
    monkeypatch.setattr(build, "transfer", lambda *_: None)
    small = parse_partial({"model": {"weights": "none", "fpn_channels": 8, "head": {"width": 16}}}, Config)
    given = {"backbone": "torchvision/resnet50", "weights": str(tmp_path / "old.pth"), "norm": "frozen", **keys}
    said = build_initialised(parse_partial({"model": given}, Config), ["a"], [1]).said
    assert any("model.norm_eps=0" in line for line in said) == told


def test_a_file_that_does_not_name_its_classes(tmp_path):
    keys = {"fpn_channels": 8, "norm": "frozen", "head.width": 16}
    state = make_content()["state_dict"]
    built, _ = start(tmp_path, keys=keys, content=state)
    assert built.rows.sources == [[], []]
    assert any("'model.class_map={1: NAME, 2: NAME}'" in line for line in built.said)
    built, _ = start(tmp_path, keys=keys | {"class_map": {1: "bird"}}, content=state)
    assert built.rows.sources == [[], [0]]
    with pytest.raises(ConfigError, match=r"keep_classes=true.*does not name its classes"):
        start(tmp_path, keys=keys | {"keep_classes": True}, content=state)


def test_keys_with_which_the_weights_mean_something_else(tmp_path):
    assert not any("trained with other keys" in line for line in start(tmp_path)[0].said)
    content = make_content()
    # [] stands for the values of the network: the deviation is the same, the mean is not.
    trained = {"image_mean": [0.4, 0.4, 0.4], "image_std": [0.229, 0.224, 0.225]}
    content["hyper_parameters"]["config"]["model"].update(trained)
    sizes = [[16.0], [32.0], [64.0], [128.0], [256.0]]
    built, _ = start(tmp_path, keys={"image_mean": [], "image_std": [], "anchors.sizes": sizes}, content=content)
    (note,) = (line for line in built.said if "trained with other keys" in line)
    assert "model.image_mean=[0.4,0.4,0.4]" in note
    assert "model.anchors.sizes=[[32.0],[64.0],[128.0],[256.0],[512.0]]" in note
    assert "std" not in note


def test_a_backbone_is_said_to_be_one(tmp_path):
    state = mobilenet_v2().state_dict()
    built, _ = start(tmp_path, keys={"norm": "frozen", "fpn_channels": 8}, content=state)
    assert torch.equal(built.model.state_dict()["backbone.body.0.0.weight"], state["features.0.0.weight"])
    assert (built.rows, len(built.said)) == (None, 1)
    assert "is a backbone" in built.said[0]
    for key, value in (("keep_classes", True), ("class_map", {"a": "b"})):
        with pytest.raises(ConfigError, match=rf"model\.{key} .*no trained detector"):
            start(tmp_path, keys={"norm": "frozen", key: value}, content=state)


def check(weights, **keys):
    check_initial(parse_partial({"model": {"weights": weights, **keys}}, Config))


RESNET = "fasterrcnn_resnet50_fpn"


def test_what_is_not_there_is_refused_before_anything_is_read(tmp_path):
    torch.save({}, tmp_path / "any.pth")
    for weights in ("none", "IMAGENET1K_V2", str(tmp_path / "any.pth")):
        check(weights)
    for weights, message in (("", "has to be given"), ("nowhere.pth", "no such file"), ("http://host/a.pth", "sha256"),
                             (str(tmp_path), r"best\.ckpt"), ("FasterRCNN_typo.pth", "no such file"),
                             ("COCO_typo.pth", "no such file")):  # fmt: skip
        with pytest.raises(WeightsError, match=message):
            check(weights)
    with pytest.raises(ConfigError, match=r"model\.keep_classes .*model\.weights=none is no trained detector"):
        check("none", keep_classes=True)


@pytest.mark.parametrize(
    ("weights", "keys"),
    [
        ("COCO_V1", {"published": RESNET}),
        ("COCO_V1", {"published": "fasterrcnn_mobilenet_v3_large_320_fpn"}),
        ("FasterRCNN_ResNet50_FPN_Weights.COCO_V1", {"published": RESNET}),
        ("MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1", {"published": f"{RESNET}_v2"}),
        ("KeypointRCNN_ResNet50_FPN_Weights.COCO_LEGACY", {"published": RESNET}),
        ("FasterRCNN_MobileNet_V3_Large_FPN_Weights.COCO_V1", {"published": "fasterrcnn_mobilenet_v3_large_320_fpn"}),
        ("FasterRCNN_ResNet50_FPN_Weights.COCO_V1", {"backbone": "torchvision/resnet50"}),
    ],
)
def test_names_of_published_detectors(weights, keys):
    check(weights, **keys)


@pytest.mark.parametrize(
    ("weights", "keys", "message"),
    [
        ("FasterRCNN_ResNet50_FPN_Weights.COCO_V9", {"published": RESNET}, r"has FasterRCNN_\w+\.COCO_V1"),
        ("COCO_V7", {"published": RESNET}, "no such file.*COCO_V1"),
        ("COCO_V1", {}, "model is none of them.*model=resnet50_fpn"),
        ("FasterRCNN_ResNet50_FPN_Weights.COCO_V1", {}, "model is none of them"),
        ("FasterRCNN_ResNet50_FPN_Weights.COCO_V1", {"published": f"{RESNET}_v2"}, "model is .*_v2 of torchvision"),
        ("FasterRCNN_ResNet50_FPN_Weights.COCO_V1", {"backbone": "torchvision/resnet50", "name": "c4"}, "none of them"),
        ("RetinaNet_ResNet50_FPN_Weights.COCO_V1", {"published": RESNET}, "no Faster R-CNN.*KeypointRCNN_ResNet50"),
        ("SSD300_VGG16_Weights.COCO_V1", {}, "no Faster R-CNN"),
        ("FCOS_ResNet50_FPN_Weights.COCO_V1", {}, "no Faster R-CNN"),
    ],
)
def test_names_of_other_detectors_are_refused_without_a_download(weights, keys, message):
    with pytest.raises(WeightsError, match=message) as refused:
        check(weights, **keys)
    assert weights in str(refused.value)


def test_a_file_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("COCO_mine.pth", "FasterRCNN_mine.pth", "COCO_V1"):
        torch.save({}, name)
        check(name)


def test_the_model_of_torchvision_is_one_of_four():
    with pytest.raises(ConfigError, match=r"model\.published=fasterrcnn_resnet_50.*fasterrcnn_resnet50_fpn_v2"):
        check("COCO_V1", published="fasterrcnn_resnet_50")

"""What a file of weights is found to be."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torchvision.models import mobilenet_v2
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
from untrained import IDS, NAMES

from detector.exceptions import WeightsError
from detector.models.initial.kinds import BackboneFile, InitialDetector, published_detector, read_initial

CLASSES = "roi_heads.box_predictor.cls_score"


def bare(rows, **more):
    """The few keys of a detector that tell what it is."""
    keys = {f"{CLASSES}.weight": torch.rand(rows, 4), f"{CLASSES}.bias": torch.rand(rows), "rpn.head.x": torch.rand(1)}
    return {**keys, **{key.replace("__", "."): value for key, value in more.items()}}


def read(tmp_path, content):
    torch.save(content, tmp_path / "file.pth")
    return read_initial(str(tmp_path / "file.pth"))


def test_checkpoint_of_a_run(checkpoint, untrained):
    found = read_initial(str(checkpoint))
    assert isinstance(found, InitialDetector)
    assert (found.class_names, found.category_ids) == (NAMES, IDS)
    assert found.trained["model"]["head"]["width"] == 16
    expected = {key.removeprefix("model."): value for key, value in untrained["state_dict"].items()}
    assert found.state.keys() == expected.keys()
    assert all(torch.equal(found.state[key], value) for key, value in expected.items())
    assert "checkpoint of a run: fpn with 2 classes" in found.said


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "_orig_mod.module.", "module.model."])
@pytest.mark.parametrize("inside", [None, "model", "state_dict", "model_ema"])
def test_state_dict_of_a_detector(tmp_path, prefix, inside):
    state = bare(4)
    content = {f"{prefix}{key}": value for key, value in state.items()}
    found = read(tmp_path, {inside: content, "epoch": 3} if inside else content)
    assert isinstance(found, InitialDetector)
    assert all(torch.equal(found.state[key], value) for key, value in state.items())
    assert (found.class_names, found.category_ids, found.trained) == (["", "", ""], [1, 2, 3], {})
    assert "3 classes that it does not name" in found.said
    assert (repr(inside) in found.said) == bool(inside)


def test_91_rows_are_those_of_coco(tmp_path):
    found = read(tmp_path, bare(91))
    assert [found.class_names[i] for i in (0, 2, 9, 89)] == ["person", "car", "traffic light", "toothbrush"]
    assert sum(name == "" for name in found.class_names) == 10  # rows without a class
    assert found.category_ids[89] == 90


def test_names_of_older_versions(tmp_path):
    new = {"rpn.head.conv.0.0.weight": 1, "rpn.head.conv.0.0.bias": 2, "backbone.fpn.inner_blocks.3.0.weight": 3,
           "backbone.fpn.layer_blocks.0.0.bias": 4, "backbone.body.layer1.0.bias": 5}  # fmt: skip
    old = {"rpn.head.conv.weight": 1, "rpn.head.conv.bias": 2, "backbone.fpn.inner_blocks.3.weight": 3,
           "backbone.fpn.layer_blocks.0.bias": 4, "backbone.body.layer1.0.bias": 5}  # fmt: skip
    for names in (old, new):
        found = read(tmp_path, bare(3) | {key: torch.tensor(value) for key, value in names.items()})
        assert {key: int(found.state[key]) for key in new} == new


def test_masks_are_left_out_aloud(tmp_path):
    found = read(tmp_path, bare(3, roi_heads__mask_head__a=torch.rand(1), roi_heads__mask_predictor__b=torch.rand(1)))
    assert not any("mask" in key for key in found.state)
    assert "2 tensors" in found.said
    assert "roi_heads.mask_head.a" in found.said


def test_backbone(tmp_path):
    state = mobilenet_v2().state_dict()
    for content in (state, {"module." + key: value for key, value in state.items()}, {"model": state, "epoch": 1}):
        found = read(tmp_path, content)
        assert isinstance(found, BackboneFile)
        assert found.states[-1].keys() == state.keys()


class Named(nn.Module):
    """A module of the names of a detector's class layer."""

    def __init__(self, value):
        super().__init__()
        self.roi_heads = nn.Module()
        self.roi_heads.box_predictor = nn.Module()
        self.roi_heads.box_predictor.cls_score = nn.Linear(4, 3)
        nn.init.constant_(self.roi_heads.box_predictor.cls_score.weight, value)


@pytest.mark.parametrize("key", ["model_ema", "ema", "state_dict_ema"])
def test_averaged_weights_of_torch(tmp_path, key):
    """As the reference scripts of torchvision write them; the mean of 1 and 3 is 2."""
    averaged = AveragedModel(Named(1.0))
    for value in (1.0, 3.0):
        averaged.update_parameters(Named(value))
    state = averaged.state_dict()
    for content, words in (
        (state, "state dict with 2 classes"),
        ({key: state, "epoch": 1}, f"under {key!r} with"),
        ({"model": Named(3.0).state_dict(), key: state}, f"under {key!r} (averaged weights; 'model' is not used)"),
    ):
        found = read(tmp_path, content)
        assert isinstance(found, InitialDetector)
        assert found.state.keys() == {f"{CLASSES}.weight", f"{CLASSES}.bias"}
        assert torch.equal(found.state[f"{CLASSES}.weight"], torch.full((3, 4), 2.0))
        assert words in found.said
    network = nn.BatchNorm2d(3)
    found = read(tmp_path, {"model": network.state_dict(), key: AveragedModel(network).state_dict()})
    assert found.states[-1].keys() == network.state_dict().keys()
    assert repr(key) in found.told


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"class_names": "abc"}, "class_names"),
        ({"class_names": {"a": 1, "b": 2, "c": 3}}, "class_names"),
        ({"class_names": [1, 2, 3]}, "class_names"),
        ({"category_ids": [1, 2]}, "category_ids has 2 entries for 3 classes"),
        ({"category_ids": 7}, "category_ids"),
        ({"category_ids": ["1", "2", "3"]}, "category_ids"),
        ({"config": "x"}, "config"),
        ({"config": {1: 2}}, "config"),
        ({"config": {"model": None}}, r"config\.model"),
        ({"config": {"model": "fpn"}}, r"config\.model"),
    ],
)
def test_facts_of_another_program(tmp_path, facts, message):
    facts = {"class_names": ["a", "b", "c"], **facts}
    with pytest.raises(WeightsError, match=rf"file\.pth: hyper_parameters.*{message}"):
        read(tmp_path, {"state_dict": bare(4), "hyper_parameters": facts})


def test_facts_that_say_nothing_of_classes(tmp_path):
    for facts in ({"lr": 0.1, "config": "x"}, {"class_names": []}, {"class_names": None}, "x"):
        assert read(tmp_path, {"state_dict": bare(4), "hyper_parameters": facts}).class_names == ["", "", ""]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds list"),
        ({}, "holds a dict with nothing"),
        ({"a": 3, "b": torch.rand(2)}, "holds a dict with a, b"),
        ({"model": {"a": 3}, "optimizer": {}}, "holds a dict with model, optimizer"),
        ({1: torch.rand(2)}, "holds a dict with 1"),
        (
            {"state_dict": {"x": torch.rand(1)}, "hyper_parameters": {"class_names": ["a"]}},
            "without the weights of a detector",
        ),
        (
            {"state_dict": bare(4), "hyper_parameters": {"class_names": ["a"]}},
            r"cls_score\.weight has 4 rows, for background and 1 class",
        ),
    ],
)
def test_file_of_something_else(tmp_path, content, message):
    with pytest.raises(WeightsError, match=rf"file\.pth: .*{message}"):
        read(tmp_path, content)


class Bomb:
    """Pickles to a call that would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_no_code_of_the_file_is_run(tmp_path):
    with pytest.raises(WeightsError, match="other things than tensors"):
        read(tmp_path, {"state_dict": bare(3), "hyper_parameters": Bomb(tmp_path / "trace")})
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("weights", "model"), [("FasterRCNN_ResNet50_FPN_Weights.COCO_V1", ""), ("COCO_V1", "fasterrcnn_resnet50_fpn")]
)
def test_published_detector(monkeypatch, weights, model):
    monkeypatch.setattr(FasterRCNN_ResNet50_FPN_Weights, "get_state_dict", lambda self, **_: bare(91))
    found = published_detector(weights, model)
    assert found.class_names[0] == "person"
    assert "FasterRCNN_ResNet50_FPN_Weights.COCO_V1 with 80 classes" in found.said


def test_published_names():
    resnet = "fasterrcnn_resnet50_fpn"
    for weights, model in (("IMAGENET1K_V2", resnet), ("COCO_V1", ""), ("none", resnet), ("a.pth", resnet)):
        assert published_detector(weights, model) is None
    with pytest.raises(WeightsError, match=r"torchvision has FasterRCNN_ResNet50_FPN_Weights\.COCO_V1"):
        published_detector("FasterRCNN_ResNet50_FPN_Weights.COCO_V7", "")


def test_failed_download_says_how_to_give_a_file(monkeypatch):
    def fail(self, **_):
        raise OSError("no route to host")

    monkeypatch.setattr(FasterRCNN_ResNet50_FPN_Weights, "get_state_dict", fail)
    with pytest.raises(
        WeightsError, match=r"fasterrcnn_resnet50_fpn_coco.*no route to host.*model\.weights=PATH model\.norm_eps=0"
    ):
        published_detector("COCO_V1", "fasterrcnn_resnet50_fpn")

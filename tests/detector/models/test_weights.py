"""Initial weights: files that fit, files that do not, and names."""

import pickle
import re
from urllib.error import URLError

import pytest
import torch
from torchvision.models import MobileNet_V2_Weights, densenet121, mobilenet_v2, resnet18
from untrained import make_content
from user_networks import Inside

from detector.config.defaults import default
from detector.config.schema import ModelConfig
from detector.exceptions import WeightsError
from detector.models.backbone import build_backbone


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(11)
    return mobilenet_v2().state_dict()


def features(**keys):
    return build_backbone(default(ModelConfig, **{"name": "c5", **keys})).module


def save(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    return str(tmp_path / "weights.pth")


@pytest.mark.parametrize("norm", ["batch", "frozen", "sync"])
@pytest.mark.parametrize("form", ["whole", "prefixed", "features"])
def test_file_is_loaded(tmp_path, state, norm, form):
    content = {
        "whole": state,
        "prefixed": {k: v for k, v in state.items() if k.startswith("features.")},
        "features": {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")},
    }[form]
    loaded = features(weights=save(tmp_path, content), norm=norm).state_dict()
    assert len(loaded) >= 260
    for key, value in loaded.items():
        assert torch.equal(value, state[f"features.{key}"]), key


def test_c4_takes_a_file_of_the_whole_network(tmp_path, state):
    loaded = features(name="c4", weights=save(tmp_path, state)).state_dict()
    assert {int(k.split(".")[0]) for k in loaded} == set(range(14))
    assert all(torch.equal(v, state[f"features.{k}"]) for k, v in loaded.items())


def test_shared_file_is_loaded(shared_dir):
    path = shared_dir / "weights" / "mobilenet_v2_features.pth"
    content = torch.load(path, weights_only=True)
    loaded = features(weights=str(path), norm="frozen").state_dict()
    assert all(torch.equal(v, content[f"features.{k}"]) for k, v in loaded.items())


def test_a_network_of_timm_takes_a_file_of_the_whole(tmp_path):
    timm = pytest.importorskip("timm")
    whole = timm.create_model("lcnet_050")
    state = whole.state_dict()
    found = build_backbone(
        default(ModelConfig, backbone="timm/lcnet_050", weights=save(tmp_path, state), norm="frozen")
    )
    body = found.module.body.model.state_dict()
    assert len(body) > 100
    assert all(torch.equal(value, state[key]) for key, value in body.items())
    del state["blocks.0.0.conv_dw.weight"]
    with pytest.raises(WeightsError, match=r"timm/lcnet_050\. Keys 1 missing: blocks\.0\.0\.conv_dw\.weight\.$"):
        build_backbone(default(ModelConfig, backbone="timm/lcnet_050", weights=save(tmp_path, state)))


def test_a_resnet_takes_a_file_of_other_classes_and_nothing_else(tmp_path):
    state = resnet18(num_classes=7).state_dict()
    keys = {"backbone": "torchvision/resnet18", "fpn_channels": 8}
    body = build_backbone(default(ModelConfig, **keys, weights=save(tmp_path, state))).module.body.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in body.items())
    state["layer5.0.conv1.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError, match=r"torchvision/resnet18\. Keys 1 unexpected: layer5\.0\.conv1\.weight\.$"):
        build_backbone(default(ModelConfig, **keys, weights=save(tmp_path, state)))


def test_old_names_of_densenet(tmp_path):
    """As in the files that torchvision publishes: denselayer1.norm.1 for denselayer1.norm1."""
    state = densenet121().state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key): value for key, value in state.items()}
    assert old.keys() != state.keys()
    keys = {"backbone": "torchvision/densenet121", "fpn_channels": 8, "weights": save(tmp_path, old)}
    body = build_backbone(default(ModelConfig, **keys)).module.body.state_dict()
    assert all(torch.equal(value, state[f"features.{key}"]) for key, value in body.items())


def test_shared_file_of_timm_is_loaded(shared_dir):
    pytest.importorskip("timm")
    path = shared_dir / "weights" / "tf_efficientnet_lite0.pth"
    content = torch.load(path, weights_only=True)
    found = build_backbone(
        default(ModelConfig, backbone="timm/tf_efficientnet_lite0", weights=str(path), norm="frozen", name="c5")
    )
    body = found.module.body.model.state_dict()
    assert all(torch.equal(value, content[key]) for key, value in body.items())
    assert (found.image_mean, found.out_channels) == ([0.5, 0.5, 0.5], 320)


def test_missing_unexpected_and_mismatched_keys_are_named(tmp_path, state):
    content = dict(state)
    del content["features.3.conv.0.0.weight"]
    content["features.99.weight"] = torch.zeros(1)
    content["features.0.0.weight"] = torch.zeros(16, 3, 3, 3)
    with pytest.raises(WeightsError) as error:
        features(weights=save(tmp_path, content))
    message = str(error.value)
    assert "1 missing: 3.conv.0.0.weight" in message
    assert "1 unexpected: 99.weight" in message
    assert "0.0.weight [16, 3, 3, 3] instead of [32, 3, 3, 3]" in message


def test_of_many_keys_five_are_named(tmp_path):
    with pytest.raises(WeightsError, match=r"missing: 0\.0\.weight, 0\.1\.weight.*, \.\.\.; 1 unexpected: fc\.weight"):
        features(weights=save(tmp_path, {"fc.weight": torch.zeros(1)}))


def test_batch_norm_weights_do_not_fit_group_norm(tmp_path, state):
    with pytest.raises(WeightsError, match=r"trained with batch norm: use model\.norm=batch"):
        features(weights=save(tmp_path, state), norm="group")


def test_absent_file_says_what_may_be_given():
    with pytest.raises(WeightsError, match=r"nowhere\.pth: there is no such file.*IMAGENET1K_V2.*none"):
        features(weights="nowhere.pth")


def test_unknown_name_lists_those_there_are():
    with pytest.raises(WeightsError, match=r"torchvision has MobileNet_V2_Weights\.IMAGENET1K_V1"):
        features(weights="MobileNet_V2_Weights.IMAGENET21K")


def test_empty_name():
    with pytest.raises(WeightsError, match="has to be given"):
        features(weights="")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 broken"])
def test_damaged_file(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"cannot be read") as refused:
        features(weights=str(path))
    assert "weights_only" not in str(refused.value)  # PyTorch's advice is to run what is in the file


@pytest.mark.parametrize("content", [[1, 2], {"a": 3}, torch.zeros(2)])
def test_file_of_something_else(tmp_path, content):
    with pytest.raises(WeightsError, match="not a dict of named tensors"):
        features(weights=save(tmp_path, content))


def test_checkpoint_of_a_run_is_recognised(tmp_path):
    with pytest.raises(WeightsError, match="a detector, not a backbone"):
        features(weights=save(tmp_path, make_content()))


class Bomb:
    """Pickles to a call that would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_no_code_of_the_file_is_run(tmp_path, writer):
    path, trace = tmp_path / "weights.pth", tmp_path / "trace"
    if writer == "torch":
        torch.save({"a": Bomb(trace)}, path)
    else:
        path.write_bytes(pickle.dumps({"a": Bomb(trace)}))
    with pytest.raises(WeightsError):
        features(weights=str(path))
    assert not trace.exists()


@pytest.mark.parametrize("name", ["MobileNet_V2_Weights.IMAGENET1K_V1", "IMAGENET1K_V1", "imagenet"])
def test_name_loads_torchvisions_weights(monkeypatch, state, name):
    monkeypatch.setattr(MobileNet_V2_Weights, "get_state_dict", lambda self, **_: state)
    loaded = features(weights=name).state_dict()
    assert all(torch.equal(v, state[f"features.{k}"]) for k, v in loaded.items())


def test_failed_download_says_how_to_give_a_file(monkeypatch):
    def fail(self, **_):
        raise URLError("no route to host")

    monkeypatch.setattr(MobileNet_V2_Weights, "get_state_dict", fail)
    with pytest.raises(
        WeightsError, match=r"mobilenet_v2-7ebf99e0\.pth failed.*no route to host.*model\.weights=PATH.*none"
    ):
        features(weights="MobileNet_V2_Weights.IMAGENET1K_V2")


@pytest.mark.parametrize("wrapper", ["", "module.", "model.", "module._orig_mod."])
def test_names_of_a_network_that_begin_like_those_of_a_wrapper(tmp_path, wrapper):
    state = Inside().state_dict()
    weights = save(tmp_path, {wrapper + key: value for key, value in state.items()})
    backbone = {"_target_": "user_networks.Inside"}
    keys = {"backbone": backbone, "fpn_strides": [4, 8], "fpn_channels": 4, "norm": "batch"}
    body = build_backbone(default(ModelConfig, **keys, weights=weights)).module.body.state_dict()
    assert len(body) > 10
    assert all(torch.equal(value, state[key]) for key, value in body.items())

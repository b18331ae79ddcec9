"""Checkpoints: read back, and refused where they are not ours."""

import pickle

import pytest
import pytorch_lightning as pl
import torch

import detector
from detector.config.defaults import default
from detector.config.schema import Config, to_dict
from detector.exceptions import WeightsError
from detector.models.checkpoint import load_trained_model, read_checkpoint
from detector.training.module import DetectionModule


@pytest.fixture(scope="module")
def module():
    """A narrow detector of two classes."""
    config = default(Config, seed=5)
    config.model.min_size, config.model.fpn_channels, config.model.head.width = [64], 16, 16
    config.roi.kind = "torchvision_align"
    torch.manual_seed(0)
    return DetectionModule(config, ["cat", "dog"], [3, 17])


@pytest.fixture
def content(module):
    """What Lightning would save of it."""
    return {
        "state_dict": module.state_dict(),
        "hyper_parameters": dict(module.hparams),
        "global_step": 7,
        "epoch": 0,
        "pytorch-lightning_version": pl.__version__,
    }


def save(tmp_path, content):
    torch.save(content, tmp_path / "x.ckpt")
    return tmp_path / "x.ckpt"


def test_load(tmp_path, module, content):
    loaded = load_trained_model(save(tmp_path, content))
    assert not loaded.training
    assert loaded.class_names == ["cat", "dog"]
    assert loaded.category_ids == [3, 17]
    assert loaded.config == module.config
    assert all(torch.equal(v, module.state_dict()[k]) for k, v in loaded.state_dict().items())
    image = torch.rand(3, 64, 64)
    module.eval()
    with torch.no_grad():
        assert torch.equal(loaded([image])[0]["boxes"], module([image])[0]["boxes"])
    with pytest.raises(RuntimeError, match=r"call \.eval\(\)"):
        loaded.train()([image])


def test_load_a_run_folder(tmp_path, content):
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    torch.save(content, tmp_path / "run/checkpoints/best.ckpt")
    assert load_trained_model(tmp_path / "run").class_names == ["cat", "dog"]


def test_initial_weights_are_not_needed(tmp_path, content):
    content["hyper_parameters"]["config"]["model"]["weights"] = "a file that is gone.pth"
    assert load_trained_model(save(tmp_path, content)).config.model.weights == "a file that is gone.pth"


def test_training_mode_is_refused(module):
    module.train()
    with pytest.raises(RuntimeError, match=r"call \.eval\(\)"):
        module([torch.rand(3, 64, 64)])


def test_missing_file(tmp_path):
    with pytest.raises(WeightsError, match=r"x\.ckpt: there is no such checkpoint"):
        load_trained_model(tmp_path / "x.ckpt")


def test_truncated_file(tmp_path, content):
    path = save(tmp_path, content)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match=r"x\.ckpt: cannot be read"):
        load_trained_model(path)


@pytest.mark.parametrize(
    "foreign", [{"state_dict": {}}, {"a": 1}, [1], {"state_dict": {}, "hyper_parameters": {"lr": 1}}]
)
def test_foreign_file(tmp_path, foreign):
    with pytest.raises(WeightsError, match="not a checkpoint of this project"):
        load_trained_model(save(tmp_path, foreign))


def test_configuration_of_another_version(tmp_path, content):
    content["hyper_parameters"] = {**content["hyper_parameters"], "config": {"modell": {}}}
    with pytest.raises(WeightsError, match=r"not one of this version: unknown key 'modell'"):
        load_trained_model(save(tmp_path, content))


def test_weights_that_do_not_fit_its_configuration(tmp_path, content):
    content["state_dict"] = {k: v for k, v in content["state_dict"].items() if "cls_score" not in k}
    with pytest.raises(
        WeightsError, match=r"do not fit .* 2 missing: model\.roi_heads\.box_predictor\.cls_score\.weight"
    ):
        load_trained_model(save(tmp_path, content))


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_no_code_of_the_file_is_run(tmp_path, content):
    content["bomb"] = Bomb(tmp_path / "trace")
    path = save(tmp_path, content)
    with pytest.raises(WeightsError, match="other things than tensors"):
        load_trained_model(path)
    (tmp_path / "y.ckpt").write_bytes(pickle.dumps(Bomb(tmp_path / "trace")))
    with pytest.raises(WeightsError):
        read_checkpoint(tmp_path / "y.ckpt")
    assert not (tmp_path / "trace").exists()


def test_configuration_is_stored_as_plain_values(tmp_path, content):
    stored = read_checkpoint(save(tmp_path, content))
    assert content["hyper_parameters"]["config"] == to_dict(stored.config)


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        detector.lode

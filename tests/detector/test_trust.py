"""A checkpoint whose network needs a class of the user's: whoever opens it runs no code of its choice."""

import copy
import http.server
import pathlib
import pickle
import shutil
import sys
import threading
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import yaml

import detector
from detector.config.defaults import parse_partial
from detector.config.schema import Config, to_dict
from detector.config.stored import trust_of
from detector.data.datamodule import DetectionDataModule
from detector.exceptions import CheckpointError, ConfigError, WeightsError
from detector.inference.detector import Detector
from detector.models.faster_rcnn import build_model
from detector.training.module import DetectionModule
from detector.training.resume import find_start
from detector.training.train import train

CODE = """import pathlib
pathlib.Path("ran").touch()
import torch
from user_parts import Pooler
from own_parts import Drawn
class Mine(Pooler):
    pass
class Data(Drawn):
    pass
def same(image, target):
    return image, target
"""


@pytest.fixture
def foreign(tmp_path, monkeypatch, checkpoint):
    """The tiny detector's checkpoint with a pooler of a module that leaves a file `ran` behind when it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine_ops.py").write_text(CODE)
    content = torch.load(checkpoint, weights_only=True)
    facts = content["hyper_parameters"]
    kind = {"_target_": "mine_ops.Mine", "gain": 0.5}
    facts["config"]["roi"]["kind"] = {"_target_": "user_parts.Pooler"}
    config = parse_partial(facts["config"], Config)
    torch.manual_seed(0)
    content["state_dict"] = build_model(config.model, config.roi, num_classes=3).state_dict(prefix="model.")
    config.roi.kind = kind
    # What only training needs.
    config.optim.name = {"_target_": "mine_ops.Optimizer"}
    facts["config"] = to_dict(config)
    yield save(content, tmp_path)
    sys.modules.pop("mine_ops", None)


def save(content, folder):
    torch.save({**content, "pytorch-lightning_version": "2.5.0", "epoch": 0}, folder / "mine.ckpt")
    return folder / "mine.ckpt"


@pytest.mark.parametrize("load", [
    lambda path, trust: detector.load(path, "cpu", trust=trust),
    lambda path, trust: DetectionModule.load_from_checkpoint(path, weights_only=True, trust=trust),
])  # fmt: skip
def test_load(foreign, tmp_path, load):
    for trust in ("", "user_parts", "mine_op"):
        with pytest.raises(CheckpointError) as caught:
            load(foreign, trust)
        for fact in ("roi.kind", "mine_ops.Mine", "trust='mine_ops'"):
            assert fact in str(caught.value)
    assert not (tmp_path / "ran").exists()
    loaded = load(foreign, "mine_ops")
    assert (tmp_path / "ran").exists()
    model = (loaded.module if isinstance(loaded, Detector) else loaded).model
    assert type(model.roi_heads.box_roi_pool.module).__name__ == "Mine"


def test_a_file_does_not_trust_itself(foreign, tmp_path):
    """Lightning calls the module with what a file says; a file that says it is trusted is not."""
    content = torch.load(foreign, weights_only=True)
    for said in ("mine_ops", None):
        content["hyper_parameters"]["trust"] = said
        with pytest.raises(CheckpointError):
            DetectionModule.load_from_checkpoint(save(content, tmp_path), weights_only=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("load", [
    lambda path: detector.load(path, "cpu"),
    lambda path: DetectionModule.load_from_checkpoint(path),
])  # fmt: skip
def test_keys_of_another_version(checkpoint, tmp_path, load):
    """Those of what only watched the training may be unknown; those of the network may not."""
    content = torch.load(checkpoint, weights_only=True)
    config = content["hyper_parameters"]["config"]
    config["logger"]["gone"], config["callbacks"] = 1, {"old": 3}
    load(save(content, tmp_path))
    config["roi"]["gone"] = 1
    with pytest.raises(WeightsError, match=r"roi\.gone"):
        load(save(content, tmp_path))
    with pytest.raises(ConfigError, match=r"logger\.gone"):  # of one's own it is a slip of the pen
        DetectionModule({"logger": {"gone": 1}}, ["cat"])


class Payload:
    """Runs code when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def test_no_code_of_a_file_runs(checkpoint, tmp_path, monkeypatch):
    """Lightning would run that of a URL, unless it is asked not to, which can be said by name only."""
    content = torch.load(checkpoint, weights_only=True)
    path = save({**content, "extra": Payload(tmp_path / "ran")}, tmp_path)
    server = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *args: None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), server) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        try:
            for source in (path, f"http://127.0.0.1:{served.server_port}/mine.ckpt"):
                with pytest.raises(pickle.UnpicklingError):
                    DetectionModule.load_from_checkpoint(source)
        finally:
            served.shutdown()
    with pytest.raises(TypeError):
        DetectionModule.load_from_checkpoint(path, "cpu", None, True, False)
    assert not (tmp_path / "ran").exists()
    DetectionModule.load_from_checkpoint(path, weights_only=False)
    assert (tmp_path / "ran").exists()


def with_data(path, **nodes):
    """The checkpoint with the user's data set and transforms, by its names of groups, and an operator of ours."""
    content = torch.load(path, weights_only=True)
    facts = content["hyper_parameters"]["config"]
    facts["roi"]["kind"] = {"_target_": "user_parts.Pooler"}
    facts["data"].update(name={"_target_": "mine_ops.Data"} if "data.name" in nodes.values() else "shapes", workers=0)
    facts["data"]["root"] = str(path.parent)
    if "augment.transforms" in nodes.values():
        facts["augment"]["transforms"] = [{"_target_": "mine_ops.same", "_partial_": True}]
    return save(content, path.parent)


def restored(path, trust):
    return DetectionModule.load_from_checkpoint(path, weights_only=True, trust=f"user_parts,{trust}").config


@pytest.mark.parametrize("part", ["data.name", "augment.transforms"])
@pytest.mark.parametrize("make", [
    lambda path, trust: DetectionDataModule(restored(path, trust)),
    lambda path, trust: DetectionDataModule(restored(path, trust).data, restored(path, trust).augment),
    lambda path, trust: DetectionDataModule({"data": {"name": restored(path, trust).data.name, "workers": 0},
                                             "augment": {"transforms": restored(path, trust).augment.transforms}}),
    lambda path, trust: DetectionDataModule(detector.load(path, "cpu", f"user_parts,{trust}").config),
    lambda path, trust: DetectionDataModule(
        torch.load(path, weights_only=True)["hyper_parameters"]["config"], trust=f"user_parts,{trust}"),
    lambda path, trust: DetectionDataModule.load_from_checkpoint(path, weights_only=True, trust=trust),
])  # fmt: skip
def test_data_of_a_checkpoint(foreign, tmp_path, part, make):
    """However the data module gets what the file names."""
    path = with_data(foreign, part=part)
    content = torch.load(path, weights_only=True)
    content["datamodule_hyper_parameters"] = {"data": content["hyper_parameters"]["config"], "trust": "mine_ops"}
    save(content, tmp_path)
    for trust in ("", "own_parts"):
        with pytest.raises(CheckpointError) as caught:
            make(path, trust).setup()
        for fact in (part, "mine_ops.", "trust='mine_ops'"):
            assert fact in str(caught.value)
    assert not (tmp_path / "ran").exists()
    data = make(path, "mine_ops")
    assert len(data.augment.own) == (part == "augment.transforms")
    if part == "data.name":
        data.setup()
        assert len(data.train_dataset) == 7
    assert (tmp_path / "ran").exists()


def test_a_run_with_the_configuration_of_a_checkpoint(foreign, tmp_path):
    config = restored(with_data(foreign, part="data.name"), "")
    with pytest.raises(CheckpointError, match=r"mine_ops"):
        train(replace(config, run_dir=str(tmp_path / "run")))
    assert not (tmp_path / "ran").exists()


def test_what_resumes_takes_the_classes_of_its_own_configuration(foreign, tmp_path):
    path = with_data(foreign, part="data.name")
    plain = parse_partial(torch.load(path, weights_only=True)["hyper_parameters"]["config"], Config)
    plain.data.name, plain.run_dir, plain.resume = "shapes", str(tmp_path / "run"), str(path)
    assert find_start(plain).checkpoint == path
    path = with_data(foreign, part="augment.transforms")
    with pytest.raises(ConfigError, match=r"augment\.transforms: .*mine_ops\.same.* then"):
        find_start(plain)
    assert not (tmp_path / "ran").exists()


def test_runs_are_compared_by_their_files(foreign, tmp_path, call_script):
    path = with_data(foreign, data="data.name", augment="augment.transforms")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        config = torch.load(path, weights_only=True)["hyper_parameters"]["config"]
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump(config))
        (tmp_path / name / "predictions.json").write_text("[]")
        shutil.copy(tmp_path / "data" / "val.json", tmp_path / name / "annotations.json")
    code, _, error = call_script("compare", "runs=[one,two]", "resamples=5", "sheet_images=0")
    assert code == 0, error
    assert not (tmp_path / "ran").exists()


def test_a_configuration_from_a_file_is_written_as_plain_values(foreign):
    """Checkpoints and `config.yaml` hold nothing else."""
    config = restored(with_data(foreign, data="data.name", augment="augment.transforms"), "")
    assert yaml.safe_load(yaml.safe_dump(to_dict(config)))["data"]["name"] == {"_target_": "mine_ops.Data"}
    assert trust_of(to_dict(config)) is None
    assert trust_of(copy.deepcopy(config)) == trust_of(pickle.loads(pickle.dumps(config))) == "user_parts,"
    assert trust_of(parse_partial({"roi": {"kind": config.roi.kind}}, Config)) == "user_parts,"


def test_an_optimizer_is_no_part_of_the_network(foreign, tmp_path, monkeypatch):
    """It is not imported, and not made when the module is trained on, unless it is trusted."""
    content = torch.load(foreign, weights_only=True)
    content["hyper_parameters"]["config"]["roi"]["kind"] = {"_target_": "user_parts.Pooler"}
    module = DetectionModule.load_from_checkpoint(save(content, tmp_path), weights_only=True, trust="user_parts")
    module._trainer = SimpleNamespace(precision_plugin=None)
    with pytest.raises(CheckpointError, match=r"optim\.name is made by mine_ops\.Optimizer"):
        module.configure_optimizers()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("name", "arguments"), [
    ("evaluate", ["report=false", "gallery_images=0", "resamples=0", "workers=0"]),
    ("predict", ["source=data/images", "draw=false"]),
    pytest.param("export", ["format=onnx", "parity_images=1"], marks=pytest.mark.slow),
    ("illustrate", ["figure=image", "output_dir=drawn"]),
])  # fmt: skip
def test_commands(foreign, tmp_path, call_script, name, arguments):
    common = [f"checkpoint={foreign}", *arguments]
    code, _, error = call_script(name, *common)
    assert (code, "roi.kind" in error, "trust='mine_ops'" in error) == (2, True, True), error
    assert not (tmp_path / "ran").exists()
    code, _, error = call_script(name, *common, "trust=mine_ops")
    assert code == 0, error
    assert (tmp_path / "ran").exists()

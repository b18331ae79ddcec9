"""A checkpoint whose network needs a class of the user's: whoever opens it runs no code of its choice."""

import http.server
import pathlib
import pickle
import sys
import threading
from functools import partial

import pytest
import torch

import detector
from detector.config.defaults import parse_partial
from detector.config.schema import Config, to_dict
from detector.exceptions import CheckpointError, ConfigError, WeightsError
from detector.inference.detector import Detector
from detector.models.faster_rcnn import build_model
from detector.training.module import DetectionModule

CODE = """import pathlib
pathlib.Path("ran").touch()
import torch
from user_parts import Pooler
class Mine(Pooler):
    pass
Mine.__module__ = __name__
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


def test_an_optimizer_is_no_part_of_the_network(foreign, tmp_path, monkeypatch):
    """It is not imported, and not made when the module is trained on, unless it is trusted."""
    content = torch.load(foreign, weights_only=True)
    content["hyper_parameters"]["config"]["roi"]["kind"] = {"_target_": "user_parts.Pooler"}
    module = DetectionModule.load_from_checkpoint(save(content, tmp_path), weights_only=True, trust="user_parts")
    module._trainer = object()
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

"""The estimate of a step's memory, and that memory does not grow."""

import gc

import numpy as np
import pytest
import torch
from torch import nn

from detector.config.defaults import default
from detector.config.schema import Config
from detector.measure import STATUS, resident_mb
from detector.models.faster_rcnn import build_model
from detector.training.expected_memory import expected_memory, input_size, saved_bytes, without_content
from detector.training.module import DetectionModule
from detector.training.train import train


def test_input_size_by_hand():
    config = default(Config)  # short side 800, long side at most 1333
    assert input_size(config, np.array([[480, 640], [100, 50]])) == (1344, 672)  # 1333 x 666
    assert input_size(config, np.array([[480, 640]])) == (800, 1088)  # 800 x 1066
    config.augment.large_scale, config.model.min_size, config.model.max_size = [0.5, 2.0], [1024], 1024
    assert input_size(config, np.array([[480, 640]])) == (1024, 1024)


class Part(nn.Module):
    """A detector of two layers: what each keeps for backward can be counted."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
        self.rpn = nn.Module()
        self.rpn.head = Head()
        self.roi_heads = nn.Module()
        self.roi_heads.box_head = nn.Sequential(nn.Flatten(), nn.Linear(4 * 2 * 2, 8))


class Head(nn.Module):
    def forward(self, maps):
        return [m.exp() for m in maps]


def test_saved_bytes_by_hand():
    config = default(Config)
    config.data.batch_size, config.roi.output_size, config.model.head.batch_size_per_image = 2, [2, 2], 5
    image, feature = 2 * 3 * 32 * 64, 2 * 4 * 32 * 64
    # The convolution keeps the image, ReLU and exp keep their results, the linear layer its input.
    expected = 4 * (image + 2 * feature + 2 * 5 * 4 * 2 * 2)
    assert saved_bytes(Part(), config, 32, 64) == expected


def test_copy_without_content_leaves_the_original_alone():
    layer = nn.Conv2d(3, 4, 1)
    before = layer.weight.clone()
    assert without_content(layer).weight.device.type == "meta"
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize(("optim", "ema", "copies"), [
    ("sgd", 0.0, 3), ("adamw", 0.0, 4), ("adamw", 0.9, 5), ({"_target_": "torch.optim.SGD"}, 0.0, 3),
])  # fmt: skip
def test_weights_count_as_often_as_they_are_kept(tiny, optim, ema, copies):
    config = tiny(optim__name=optim, optim__ema=ema, model__norm="group")
    model = build_model(config.model, config.roi, 4)
    found = expected_memory(model, config, np.array([[64, 64]]))
    assert found.weights == copies * 4 * sum(p.numel() for p in model.parameters())
    assert found.input_size == (2, 64, 64)
    assert found.activations > 0


def test_a_network_of_the_users_that_wants_numbers(tiny):
    """It cannot run on the meta device; the weights are still counted."""
    config = tiny(model__backbone={"_target_": "user_networks.Net", "numbers": True}, model__fpn_strides=[4, 8])
    config.model.anchors.sizes = [[8.0], [16.0]]
    model = build_model(config.model, config.roi, 4)
    found = expected_memory(model, config, np.array([[64, 64]]))
    assert found.activations is None
    assert found.weights > 0
    assert "unknown" in str(found)


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.is_file(), reason="needs /proc")
def test_memory_does_not_grow(tiny, monkeypatch):
    """300 steps with an evaluation after every hundred. What a step does not give back grows in each of the two
    thirds after the first; what is allocated once, late, in one of them."""
    sizes = []
    original = DetectionModule.on_validation_epoch_end

    def noted(self):
        original(self)
        gc.collect()
        sizes.append(resident_mb())

    monkeypatch.setattr(DetectionModule, "on_validation_epoch_end", noted)
    train(tiny(trainer__max_steps=300, trainer__eval_every=100, trainer__log_every=50, data__batch_size=1))
    assert len(sizes) == 3
    assert min(sizes[1] - sizes[0], sizes[2] - sizes[1]) < 5, sizes  # megabytes


def test_compiled_backbone_trains_as_the_plain_one(tiny, tmp_path, monkeypatch):
    """Wiring only, without a compiler: the backbone is called through torch.compile, and nothing else changes."""
    calls = []

    def backend(graph, inputs):
        calls.append(len(inputs))
        return graph.forward

    original = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **keys: original(self, backend=backend, **keys))
    small = {"model__backbone": {"_target_": "user_networks.Net"}, "model__fpn_strides": [4, 8],
             "model__anchors__sizes": [[8.0], [16.0]]}  # fmt: skip
    states = {}
    for name in ("none", "backbone"):
        result = train(tiny(run_dir=str(tmp_path / name), compile=name, optim__ema=0.9, trainer__max_steps=2, **small))
        states[name] = torch.load(result.last_checkpoint, weights_only=True)["state_dict"]
        assert bool(calls) == (name == "backbone")
    assert states["none"].keys() == states["backbone"].keys()
    for key, value in states["none"].items():
        torch.testing.assert_close(states["backbone"][key], value, rtol=1e-4, atol=1e-5)

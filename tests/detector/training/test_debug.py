"""The modes of configs/debug: each runs, and does what it says."""

import json

import pytest
import torch
from small import SMALL, arguments
from test_recipes import CONFIGS, composed

from detector.data.datamodule import DetectionDataModule
from detector.training.module import DetectionModule
from detector.training.train import train

MODES = sorted(path.stem for path in (CONFIGS / "debug").glob("*.yaml"))


@pytest.fixture
def run(tmp_path, shapes_root):
    def go(*more):
        values = SMALL | {"data.shapes.val_images": 9, "data.root": shapes_root, "run_dir": tmp_path / "run"}
        config = composed(*arguments(values), *more)
        return config, train(config)

    return go


def test_modes():
    assert MODES == ["fast", "nan", "overfit", "profile"]
    for mode in MODES:
        composed(f"debug='{mode}'", "experiment=large_scale_jitter")


def test_fast(run):
    _, result = run("debug=fast")
    assert result.steps == 3
    assert result.result.images == 8  # of nine


def test_profile(run, capsys):
    _, result = run("debug=profile", "trainer.max_steps=6", "trainer.profile_steps=2")
    text = (result.folder / "profile.txt").read_text()
    shares = {line[:21].strip(): line.split()[-1] for line in text.splitlines()[1:5]}
    assert list(shares) == ["data", "forward", "backward", "optimiser, callbacks"]
    assert sum(float(share[:-1]) for share in shares.values()) == pytest.approx(100, abs=0.3)
    assert "Self CPU" in text
    assert "conv" in text
    assert json.loads((result.folder / "trace.json").read_text())["traceEvents"]
    assert "phase" in capsys.readouterr().out


def test_profile_of_a_run_that_is_too_short_says_so(run, capsys):
    _, result = run("debug=profile", "trainer.max_steps=2", "optim.warmup_steps=0")
    assert "nothing was profiled: the first 3 batches are not measured, and the run had 2" in capsys.readouterr().out
    assert not (result.folder / "profile.txt").exists()


def test_overfit_trains_and_evaluates_on_the_same_images(run):
    config, result = run("debug=overfit", "data.overfit_images=3", "trainer.max_steps=2", "optim.warmup_steps=0")
    assert result.result.images == 3
    assert config.augment.horizontal_flip == 0
    data = DetectionDataModule(config.data, config.augment, 0)
    data.setup()
    assert data.train_dataset.image_ids == data.val_dataset.image_ids
    assert data.train_dataset.annotations == data.val_dataset.annotations
    assert (data.train_dataset.box_counts > 0).all()


def test_nan(run, monkeypatch):
    modes = []
    original = DetectionModule.training_step

    def step(self, batch, batch_idx):
        modes.append(torch.is_anomaly_enabled())
        return original(self, batch, batch_idx)

    monkeypatch.setattr(DetectionModule, "training_step", step)
    run("debug='nan'", "trainer.max_steps=1", "optim.warmup_steps=0")
    assert modes == [True]

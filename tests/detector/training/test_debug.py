"""The modes of configs/debug: each runs, and does what it says."""

import json

import pytest
from test_recipes import CONFIGS, composed

from detector.data.datamodule import DetectionDataModule
from detector.training.run import train

SMALL = (
    "data.shapes.train_images=12",
    "data.shapes.val_images=3",
    "data.shapes.image_size=64",
    "data.shapes.max_object=40",
    "data.batch_size=2",
    "data.workers=0",
    "model.min_size=[64]",
    "model.fpn_channels=16",
    "model.head.width=16",
    "trainer.accelerator=cpu",
    "logger.sheet_images=0",
    "logger.tensorboard=false",
)
MODES = sorted(path.stem for path in (CONFIGS / "debug").glob("*.yaml"))


@pytest.fixture
def run(tmp_path, shapes_root):
    def go(*arguments):
        config = composed(*SMALL, f"data.root={shapes_root}", f"run_dir={tmp_path}/run", *arguments)
        return config, train(config)

    return go


def test_modes():
    assert MODES == ["fast", "nan", "overfit", "profile"]
    for mode in MODES:
        composed(f"debug='{mode}'", "experiment=large_scale_jitter")


def test_fast(run):
    _, result = run("debug=fast")
    assert result.steps == 3


def test_profile(run, capsys):
    _, result = run("debug=profile", "trainer.max_steps=6", "trainer.profile_steps=2")
    text = (result.run_dir / "profile.txt").read_text()
    shares = {line[:16].strip(): line.split()[-1] for line in text.splitlines()[1:5]}
    assert list(shares) == ["data", "forward", "backward", "optimiser, logs"]
    assert sum(float(share[:-1]) for share in shares.values()) == pytest.approx(100, abs=0.3)
    assert "Self CPU" in text
    assert "conv" in text
    assert json.loads((result.run_dir / "trace.json").read_text())["traceEvents"]
    assert "phase" in capsys.readouterr().out


def test_overfit_trains_and_evaluates_on_the_same_images(run):
    config, result = run("debug=overfit", "data.overfit_images=3", "trainer.max_steps=2", "optim.warmup_steps=0")
    assert result.result.images == 3
    assert config.augment.horizontal_flip == 0
    data = DetectionDataModule(config.data, config.augment, 0)
    data.setup()
    assert data.train_dataset.image_ids == data.val_dataset.image_ids
    assert data.train_dataset.annotations == data.val_dataset.annotations
    assert (data.train_dataset.box_counts > 0).all()


def test_nan(run):
    _, result = run("debug='nan'", "trainer.max_steps=1", "optim.warmup_steps=0")
    assert result.steps == 1

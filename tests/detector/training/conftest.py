"""A training run of seconds: a data set of a few small images and a narrow network."""

import sys
from pathlib import Path

import pytest

from detector.config import Config


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory):
    """Where the tests of a session keep the drawn data set."""
    return tmp_path_factory.mktemp("shapes")


@pytest.fixture
def tiny(tmp_path, shapes_root):
    """A function: keys by dotted name -> the configuration of a tiny run into ``tmp_path / "run"``."""

    def make(**keys):
        config = Config(run_dir=str(tmp_path / "run"))
        config.data.root = str(shapes_root)
        shapes = config.data.shapes
        shapes.train_images, shapes.val_images, shapes.image_size = 10, 3, 64
        shapes.min_object, shapes.max_object = 16, 40
        config.data.batch_size, config.data.workers = 2, 0
        config.model.min_size, config.model.fpn_channels, config.model.head.width = [64], 16, 16
        config.model.anchors.sizes = [[8], [16], [32], [64], [128]]
        config.roi.kind = "align"
        config.optim.name, config.optim.lr, config.optim.warmup_steps = "adamw", 0.001, 0
        config.trainer.max_steps, config.trainer.log_every, config.trainer.accelerator = 4, 1, "cpu"
        config.logger.tensorboard = False
        config.logger.sheet_images = 1
        for key, value in keys.items():
            *groups, name = key.split("__")
            part = config
            for group in groups:
                part = getattr(part, group)
            assert hasattr(part, name), key
            setattr(part, name, value)
        return config

    return make


@pytest.fixture
def script(shapes_root):
    """A function: arguments -> the command line of scripts/train.py for a tiny run."""
    arguments = [
        f"data.root={shapes_root}",
        "data.shapes.train_images=10",
        "data.shapes.val_images=3",
        "data.shapes.image_size=64",
        "data.shapes.max_object=40",
        "data.batch_size=2",
        "data.workers=0",
        "model.min_size=[64]",
        "model.fpn_channels=16",
        "model.head.width=16",
        "model.anchors.sizes=[[8],[16],[32],[64],[128]]",
        "optim.lr=0.001",
        "optim.warmup_steps=0",
        "trainer.max_steps=4",
        "trainer.log_every=1",
        "trainer.accelerator=cpu",
        "trainer.threads=1",
        "logger.tensorboard=false",
        "logger.sheet_images=1",
    ]
    path = Path(__file__).resolve().parents[3] / "scripts" / "train.py"

    def make(*more):
        changed = {argument.split("=")[0] for argument in more}
        kept = [argument for argument in arguments if argument.split("=")[0] not in changed]
        return [sys.executable, str(path), *kept, *more]

    return make

"""A training run of seconds: a data set of a few small images and a narrow network."""

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
        config.optim.name, config.optim.lr, config.optim.warmup_steps = "adamw", 0.001, 2
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

"""A run of seconds: a few small images and a narrow network, as values of keys and as arguments of a command."""

from typing import Any

from detector.config.schema import Config

SMALL: dict[str, Any] = {
    "data.shapes.train_images": 10,
    "data.shapes.val_images": 3,
    "data.shapes.image_size": 64,
    "data.shapes.max_object": 40,
    "data.batch_size": 2,
    "data.workers": 0,
    "model.min_size": [64],
    "model.fpn_channels": 16,
    "model.head.width": 16,
    "model.anchors.sizes": [[8.0], [16.0], [32.0], [64.0], [128.0]],
    "trainer.accelerator": "cpu",
    "logger.tensorboard": False,
    "logger.sheet_images": 0,
}
# A length, for runs that get none from a debug mode or a recipe.
SHORT: dict[str, Any] = {
    "optim.lr": 0.001,
    "optim.warmup_steps": 0,
    "trainer.max_steps": 4,
    "trainer.log_every": 1,
}


def arguments(values: dict[str, Any]) -> list[str]:
    """``values`` by dotted key as Hydra takes them; of a key that comes twice in a command the last one counts."""
    return [f"{key}={str(value).replace(' ', '')}" for key, value in values.items()]


def configure(config: Config, values: dict[str, Any]) -> Config:
    """``config`` with ``values`` by dotted key."""
    for key, value in values.items():
        *groups, name = key.split(".")
        part: Any = config
        for group in groups:
            part = getattr(part, group)
        assert hasattr(part, name), key
        setattr(part, name, value)
    return config

"""Recipes run as they are, lengths in passes, and what a run says about an unlucky configuration."""

import json
from pathlib import Path

import hydra
import pytest

from detector.config import Config, ShapesConfig, parse
from detector.data.shapes import ensure_shapes
from detector.errors import ConfigError
from detector.training.announce import notes
from detector.training.length import check_length, settle
from detector.training.optim import images_a_step, scaled_lr
from detector.training.run import train

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
IMAGES = 8
# For speed, and because features are downloaded: nothing that a recipe is about.
SMALL = (
    "model.weights=none",
    "model.min_size=[64]",
    "model.max_size=64",
    "augment.crop_size=64",
    "data.batch_size=2",
    "data.workers=0",
    "data.repeat_threshold=0",  # repeats make a pass longer, and this one is to be one step
    "optim.warmup_steps=0",
    f"trainer.epochs={2 / IMAGES}",
    "trainer.accelerator=cpu",
    "logger.sheet_images=0",
    "logger.tensorboard=false",
)


def composed(*arguments):
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return parse(hydra.compose("train", overrides=list(arguments)))


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """A folder with the names of COCO 2017 and with those of the README, both of a few drawn images."""
    root = tmp_path_factory.mktemp("coco")
    drawn = ensure_shapes(
        root / "drawn", ShapesConfig(train_images=IMAGES, val_images=2, image_size=64, max_object=40, empty_fraction=0)
    )
    (root / "annotations").mkdir()
    for split in ("train", "val"):
        content = json.loads((drawn / f"{split}.json").read_text())
        for path in (root / f"{split}.json", root / "annotations" / f"instances_{split}2017.json"):
            path.write_text(json.dumps(content))
        (root / f"{split}2017").symlink_to(drawn / "images")
    (root / "images").symlink_to(drawn / "images")
    return root


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_recipe_trains(name, coco, tmp_path):
    arguments = [f"data.root={coco}", f"run_dir={tmp_path}/run", *SMALL]
    recipe, config = composed(f"experiment={name}"), composed(f"experiment={name}", *arguments)
    result = train(config)
    assert result.steps == 1
    assert (config.optim.name, config.augment.large_scale) == (recipe.optim.name, recipe.augment.large_scale)
    assert result.result.images == 2


def test_every_recipe_with_drops_drops_where_its_source_says():
    for name, steps, drops in (
        ("torchvision_reference", 26, (16, 22)),
        ("schedule_1x", 90_000, (60_000, 80_000)),
        ("schedule_3x", 270_000, (210_000, 250_000)),
        ("large_scale_jitter", 184_375, (163_889, 177_546)),
    ):
        optim = composed(f"experiment={name}").optim
        assert [m * steps for m in optim.milestones] == pytest.approx(drops, rel=2e-4), name


@pytest.mark.parametrize(("name", "steps"), [("schedule_1x", 90_000), ("schedule_3x", 270_000)])
def test_a_length_in_passes_is_the_published_number_of_steps(name, steps):
    config = composed(f"experiment={name}", "trainer=ddp", "trainer.devices=8")
    settle(config, 117_266)
    assert config.trainer.max_steps == pytest.approx(steps, rel=1e-3)
    half = composed(f"experiment={name}", "trainer=ddp", "trainer.devices=4")
    settle(half, 117_266)
    assert half.trainer.max_steps == pytest.approx(2 * steps, rel=1e-3)


def test_passes_by_hand():
    config = Config()
    config.data.batch_size, config.optim.accumulate, config.trainer.devices = 2, 3, 2  # 12 images a step
    config.trainer.epochs, config.trainer.eval_epochs, config.optim.warmup_steps = 3, 0.5, 5
    settle(config, 96)
    assert (config.trainer.max_steps, config.trainer.eval_every) == (24, 4)


def test_without_passes_the_steps_stay():
    config = Config()
    settle(config, 10)
    assert (config.trainer.max_steps, config.trainer.eval_every) == (1000, 0)


@pytest.mark.parametrize("steps", [99, 100])
def test_a_warmup_that_never_ends_names_both_keys(tiny, steps):
    config = tiny(optim__warmup_steps=100, trainer__max_steps=steps)
    with pytest.raises(ConfigError, match=rf"optim\.warmup_steps=100: .*trainer\.max_steps={steps}\. Give fewer"):
        train(config)
    assert not Path(config.run_dir).exists()
    config.trainer.max_steps = 101
    check_length(config)


def test_a_warmup_that_never_ends_in_passes(tiny):
    config = tiny(optim__warmup_steps=100, trainer__epochs=2.0)  # 10 images, 2 a step
    with pytest.raises(ConfigError, match=r"trainer\.max_steps=10 \(2 passes of these data\)"):
        train(config)


def test_random_weights_on_photographs_are_said_and_what_to_do():
    (note,) = notes(composed("data=coco", "model.weights=none", "model.norm=batch"), 10)
    assert "random weights" in note
    assert "model.weights=IMAGENET1K_V2" in note
    assert notes(composed("data=coco"), 10) == []
    assert notes(composed(), 10) == []


def test_frozen_random_weights_and_short_runs_are_said():
    config = composed("model.norm=frozen", "model.trainable_stages=3", "trainer.max_steps=50")
    frozen, stages, short = notes(config, 0.5)
    assert "model.norm=batch" in frozen
    assert "model.trainable_stages=3" in stages
    assert "trainer.epochs" in short


@pytest.mark.parametrize(("optim", "lr", "base"), [("adamw", 0.0002, 2), ("sgd", 0.02, 16)])
def test_the_rate_on_own_data_is_the_optimisers(optim, lr, base):
    found = composed("data=coco", f"optim={optim}").optim
    assert (found.lr, found.base_batch) == (lr, base)
    assert found.warmup_steps == 200


@pytest.mark.parametrize(("name", "lr"), [("finetune_small", 0.0005), ("torchvision_reference", 0.02 * 2 / 16)])
def test_the_rate_of_a_recipe_follows_the_images_a_step(name, lr):
    config = composed(f"experiment={name}")
    assert scaled_lr(config.optim, images_a_step(config)) == pytest.approx(lr)

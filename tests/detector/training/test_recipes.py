"""Recipes run as they are, and lengths in epochs."""

import re
from pathlib import Path

import hydra
import pytest
from comparing import rows

from detector.config.defaults import default
from detector.config.schema import Config, ShapesConfig, parse
from detector.data.shapes import ensure_shapes
from detector.exceptions import ConfigError
from detector.training.length import check_length, set_length
from detector.training.optimiser import images_per_step, scaled_lr
from detector.training.train import train

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
    "data.repeat_threshold=0",  # repeats make an epoch longer, and this one is to be one step
    "optim.warmup_steps=0",
    f"trainer.epochs={2 / IMAGES}",
    "trainer.accelerator=cpu",
    "logger.sheet_images=0",
    "logger.tensorboard=false",
)


def composed(*arguments):
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return parse(hydra.compose("train", overrides=list(arguments)))


# Recipes for data of one's own; the others are for COCO 2017.
OWN = ["bccd", "finetune_small"]


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Folders of a few drawn images by choice of ``data``: with the names in the README, and with COCO 2017's."""
    drawn = ensure_shapes(
        tmp_path_factory.mktemp("drawn"),
        default(ShapesConfig, train_images=IMAGES, val_images=2, image_size=64, max_object=40, empty_fraction=0),
    )
    own, official = (tmp_path_factory.mktemp(name) for name in ("coco", "coco2017"))
    (official / "annotations").mkdir()
    (own / "images").symlink_to(drawn / "images")
    for split in ("train", "val"):
        (own / f"{split}.json").symlink_to(drawn / f"{split}.json")
        (official / "annotations" / f"instances_{split}2017.json").symlink_to(drawn / f"{split}.json")
        (official / f"{split}2017").symlink_to(drawn / "images")
    return {"coco": own, "coco2017": official}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "data"),
    [(name, "coco" if name in OWN else "coco2017") for name in EXPERIMENTS] + [(name, "coco2017") for name in OWN],
)
def test_every_recipe_trains(name, data, roots, tmp_path):
    """As it is, and those for data of one's own on the folders of COCO 2017 as well: a step, and the evaluation."""
    other = [] if data == ("coco" if name in OWN else "coco2017") else [f"data={data}"]
    config = composed(f"experiment={name}", *other, f"data.root={roots[data]}", f"run_dir={tmp_path}/run", *SMALL)
    result = train(config)
    assert result.steps == 1
    assert result.result.images == 2
    (training,) = [row for row in rows(result.folder) if row["train/loss"]]
    assert float(training["train/loss"]) > 0
    assert float(training["train/lr"]) == pytest.approx(scaled_lr(config.optim, images_per_step(config)))


def test_every_recipe_with_drops_drops_where_its_source_says():
    for name, steps, drops in (
        ("torchvision_reference", 26, (16, 22)),
        ("schedule_1x", 90_000, (60_000, 80_000)),
        ("schedule_3x", 270_000, (210_000, 250_000)),
        ("large_scale_jitter", 184_375, (163_889, 177_546)),
    ):
        optim = composed(f"experiment={name}").optim
        assert [m * steps for m in optim.milestones] == pytest.approx(drops, rel=2e-4), name


def test_every_recipe_has_the_network_of_its_source():
    """Read in the files that the recipes name: norms, stages that train, layers of RPN and box head, regions. A variant
    with MobileNetV2 says so in its name; the rest is that of its recipe."""
    sources = {
        "torchvision_reference": (["frozen", "none", "none"], 3, [1, 0], 2000),
        "schedule_1x": (["frozen", "none", "none"], 3, [1, 0], 1000),
        "schedule_3x": (["frozen", "none", "none"], 3, [1, 0], 1000),
        "large_scale_jitter": (["sync", "sync", "sync"], 5, [2, 4], 1000),
    }
    variants = set(EXPERIMENTS) - set(OWN) - set(sources)
    assert variants
    for name, expected in sources.items():
        config = composed(f"experiment={name}")
        model = config.model
        norms = [model.norm, model.fpn_norm, model.head.conv_norm]
        depths = [model.rpn.conv_depth, model.head.conv_depth]
        assert (norms, model.trainable_stages, depths, model.rpn.post_nms_top_n_train) == expected, name
        assert model.backbone == "torchvision/resnet50"
        assert model.weights == ("none" if name == "large_scale_jitter" else "ResNet50_Weights.IMAGENET1K_V1")
        if (variant := f"{name}_mobilenet_v2") in variants:
            found = composed(f"experiment={variant}")
            assert (found.optim, found.trainer, found.augment) == (config.optim, config.trainer, config.augment)
            assert (found.model.norm, found.model.min_size) == (model.norm, model.min_size)
            assert found.model.backbone == "mobilenet_v2"
            variants.remove(variant)
    assert not variants


@pytest.mark.parametrize(("name", "steps"), [("schedule_1x", 90_000), ("schedule_3x", 270_000)])
def test_a_length_in_epochs_is_the_published_number_of_steps(name, steps):
    config = composed(f"experiment={name}", "trainer=ddp", "trainer.devices=8")
    set_length(config, 117_266)
    assert config.trainer.max_steps == pytest.approx(steps, rel=1e-3)
    half = composed(f"experiment={name}", "trainer=ddp", "trainer.devices=4")
    set_length(half, 117_266)
    assert half.trainer.max_steps == pytest.approx(2 * steps, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trainer.max_steps=9"], r"max_steps: has no effect, as trainer\.epochs=12\.28 .* trainer\.epochs=0 too"),
        (["trainer.eval_every=9", "trainer.epochs=0"], r"eval_every: has no effect, as trainer\.eval_epochs=1 "),
    ],
)
def test_steps_that_the_epochs_of_a_recipe_replace_are_refused(call_script, arguments, message):
    code, _, errors = call_script("train", "experiment=schedule_1x", *arguments)
    assert code == 2
    assert re.search(message, errors)


def test_steps_win_where_epochs_are_given_up(call_script):
    """What is wrong then is the folder of the data, which is read next."""
    arguments = ("trainer.max_steps=9", "trainer.epochs=0", "optim.warmup_steps=0", "trainer.accelerator=cpu")
    code, _, errors = call_script("train", "experiment=schedule_1x", "data.root=nowhere", *arguments)
    assert code == 2
    assert "instances_train2017.json: there is no such file" in errors


def test_epochs_by_hand():
    config = default(Config)
    config.data.batch_size, config.optim.accumulate, config.trainer.devices = 2, 3, 2  # 12 images per step
    config.trainer.epochs, config.trainer.eval_epochs, config.optim.warmup_steps = 3, 0.5, 5
    set_length(config, 96)
    assert (config.trainer.max_steps, config.trainer.eval_every) == (24, 4)


def test_without_epochs_the_steps_stay():
    config = default(Config)
    set_length(config, 10)
    assert (config.trainer.max_steps, config.trainer.eval_every) == (1000, 0)


@pytest.mark.parametrize("steps", [99, 100])
def test_a_warmup_that_never_ends_names_both_keys(tiny, steps):
    config = tiny(optim__warmup_steps=100, trainer__max_steps=steps)
    with pytest.raises(ConfigError, match=rf"optim\.warmup_steps=100: .*trainer\.max_steps={steps}\. Give fewer"):
        train(config)
    assert not Path(config.run_dir).exists()
    config.trainer.max_steps = 101
    check_length(config)


def test_a_warmup_that_never_ends_in_epochs(tiny):
    config = tiny(optim__warmup_steps=100, trainer__epochs=2.0)  # 10 images, 2 per step
    with pytest.raises(ConfigError, match=r"trainer\.max_steps=10 \(2 epochs of these data\)"):
        train(config)


@pytest.mark.parametrize(("optim", "lr", "base"), [("adamw", 0.0002, 2), ("sgd", 0.02, 16)])
def test_the_rate_on_own_data_is_the_optimisers(optim, lr, base):
    found = composed("data=coco", f"optim={optim}").optim
    assert (found.lr, found.base_batch) == (lr, base)
    assert found.warmup_steps == 200


@pytest.mark.parametrize(("name", "lr"), [("finetune_small", 0.0005), ("torchvision_reference", 0.02 * 2 / 16)])
def test_the_rate_of_a_recipe_follows_the_images_per_step(name, lr):
    config = composed(f"experiment={name}")
    assert scaled_lr(config.optim, images_per_step(config)) == pytest.approx(lr)

"""The data and augment groups of the configuration: complete, and what the schema says."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from detector.config.checks import known_keys
from detector.config.defaults import default
from detector.config.schema import AugmentConfig, DataConfig, parse
from detector.data.datamodule import DetectionDataModule
from detector.data.transforms import Augment
from detector.exceptions import DataError

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


def composed(group, name, *overrides):
    with initialize_config_dir(str(CONFIGS), version_base=None):
        return compose(f"{group}/{name}", [*overrides])[group]


@pytest.mark.parametrize("name", ["none", "default", "strong", "large_scale"])
def test_augment_choices_are_valid_and_complete(name):
    loaded = composed("augment", name)
    assert set(loaded) == set(known_keys(AugmentConfig))
    Augment(parse(loaded, AugmentConfig))


def test_none_turns_everything_off():
    config = parse(composed("augment", "none"), AugmentConfig)
    assert (config.horizontal_flip, config.vertical_flip, config.iou_crop, config.photometric) == (0, 0, 0, 0)
    assert config.scale_jitter == config.large_scale == [1, 1]
    assert (config.mosaic, config.copy_paste) == (0, 0)


def test_coco_reads_the_common_layout_with_only_a_root():
    data = parse(composed("data", "coco", "data.root=pets"), DataConfig)
    assert data.name == "coco"
    assert (data.root, data.train_annotations, data.val_annotations) == ("pets", "train.json", "val.json")
    assert data.train_images == data.val_images == "images"
    assert data.shapes == default(DataConfig).shapes


def test_coco_without_a_root_says_what_to_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = DetectionDataModule(parse(composed("data", "coco"), DataConfig), default(AugmentConfig), 0)
    with pytest.raises(DataError, match=r"train.json: there is no such file .*Set data.root"):
        data.setup()


def test_training_on_a_box_that_leaves_its_image_names_the_key_of_training(write_coco):
    file, _ = write_coco([(1, 1, (50, 10, 40, 10))])
    overrides = (f"data.root={file.parent}", "data.val_annotations=train.json")
    setup = lambda *more: DetectionDataModule(
        parse(composed("data", "coco", *overrides, *more), DataConfig), default(AugmentConfig), 0
    ).setup()
    with pytest.raises(DataError, match="leaves its image") as caught:
        setup()
    remedies = re.findall(r"use (\S+=drop) .* or (\S+=clip) ", str(caught.value))
    with pytest.raises(DataError, match="no box to train on"):  # it was the only one
        setup(remedies[0][0])
    setup(remedies[0][1])

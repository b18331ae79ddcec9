"""What a run says when it begins: its learning rate, and what is legal and mostly a mistake."""

import json

import pytest
from PIL import Image
from test_recipes import composed

from detector.config.defaults import default
from detector.config.schema import AugmentConfig, DataConfig, OptimConfig
from detector.data.datamodule import DetectionDataModule
from detector.training.announce import notes, rate


@pytest.mark.parametrize(
    ("name", "batch", "line"),
    [
        ("sgd", 2, "lr 0.0025 = 0.02 x 2/16 (optim.lr is for steps of 16 images, these are of 2)"),
        ("adamw", 64, "lr 0.04 = 0.02 x sqrt(64/16) (optim.lr is for steps of 16 images, these are of 64)"),
        ("sgd", 16, "lr 0.02"),
    ],
)
def test_rate_says_how_it_comes_about(name, batch, line):
    assert rate(default(OptimConfig, name=name, lr=0.02, base_batch=16), batch) == line


def test_rate_for_any_number_of_images_stands_alone():
    assert rate(default(OptimConfig, lr=0.0005), 4) == "lr 0.0005"


def test_random_weights_on_photographs_are_said_and_what_to_do():
    (note,) = notes(composed("data=coco", "model.weights=none", "model.norm=batch"), 10)
    assert "random weights" in note
    assert "model.weights=IMAGENET1K_V2" in note
    assert notes(composed("data=coco"), 10) == []
    assert notes(composed(), 10) == []


def test_images_of_both_splits_are_said(tmp_path):
    """The same file by another path; an image of the same name in another folder is another image."""
    pixels = Image.new("RGB", (40, 30))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for name in ("1.png", "2.png", "3.png"):
            pixels.save(tmp_path / folder / name)
    entry = lambda number: {"id": number, "file_name": f"{number}.png", "width": 40, "height": 30}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
    for split, numbers in (("train", (1, 2)), ("val", (1, 2, 3))):
        content = {"images": [entry(n) for n in numbers], "annotations": [box], "categories": [{"id": 1, "name": "x"}]}
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    for folder, overfit, shared in (("a/../a", 0, 2), ("b", 0, 0), ("a", 1, 0)):
        config = default(DataConfig, name="coco", root=str(tmp_path), train_annotations="train.json", train_images="a",
                            val_annotations="val.json", val_images=folder, overfit_images=overfit)  # fmt: skip
        data = DetectionDataModule(config, default(AugmentConfig), 0)
        data.setup()
        assert data.shared_images == shared
    (note,) = notes(composed(), 10, 2)
    assert note.startswith("2 validation images are training images too: ")
    (note,) = notes(composed(), 10, 1)
    assert note.startswith("1 validation image is a training image too: ")


def test_frozen_random_weights_and_short_runs_are_said():
    config = composed("model.norm=frozen", "model.trainable_stages=3", "trainer.max_steps=50")
    frozen, stages, short = notes(config, 0.5)
    assert "model.norm=batch" in frozen
    assert "model.trainable_stages=3" in stages
    assert "trainer.epochs" in short

"""What a run says when it begins: its learning rate, and what is legal and mostly a mistake."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from test_recipes import composed
from torchvision_anchors import torchvision_best_iou

from detector.config.defaults import default
from detector.config.schema import AugmentConfig, DataConfig, OptimConfig
from detector.data.coco import CocoDataset
from detector.data.datamodule import DetectionDataModule
from detector.models.backbone import anchor_strides
from detector.training.announce import anchor_notes, notes, rate


@pytest.mark.parametrize(
    ("name", "batch", "line"),
    [
        ("sgd", 2, "lr 0.0025 = 0.02 x 2/16 (optim.lr is for steps of 16 images, these are of 2)"),
        ("adamw", 64, "lr 0.04 = 0.02 x sqrt(64/16) (optim.lr is for steps of 16 images, these are of 64)"),
        ("sgd", 16, "lr 0.02"),
        (
            {"_target_": "torch.optim.SGD"},
            32,
            "lr 0.04 = 0.02 x 32/16 (optim.lr is for steps of 16 images, these are of 32)",
        ),
        (
            {"_target_": "torch.optim.RAdam", "lr": 0.1},
            64,
            "lr 0.2 = 0.1 x sqrt(64/16) (optim.name.lr is for steps of 16 images, these are of 64)",
        ),
    ],
)
def test_rate_says_how_it_comes_about(name, batch, line):
    assert rate(default(OptimConfig, name=name, lr=0.02, base_batch=16), batch) == line


def test_rate_for_any_number_of_images_stands_alone():
    assert rate(default(OptimConfig, lr=0.0005), 4) == "lr 0.0005"


def test_random_weights_on_photographs_are_said_and_what_to_do():
    (note,) = notes(composed("data=coco", "model.weights=none", "model.norm=batch"), 10)
    assert "random weights" in note
    assert "model.weights=imagenet" in note
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


def test_anchors_that_reach_few_boxes_are_said_and_the_printed_arguments_mend_it(tmp_path):
    """``finetune_small`` on 40 images of 320 x 320 pixels with one object of about 200 each, as photographs."""
    rng = np.random.default_rng(0)
    boxes, entries = [], []
    for number in range(1, 41):
        side = rng.normal(200, 20, 2).clip(150, 300)
        corner = rng.uniform(0, 1, 2) * (320 - side)
        boxes.append([*corner, *(corner + side)])
        box = [*corner.tolist(), *side.tolist()]
        entries.append({"id": number, "image_id": number, "category_id": 1, "bbox": box, "area": side.prod()})
        Image.new("L", (320, 320)).save(tmp_path / f"{number}.png")
    images = [{"id": n, "file_name": f"{n}.png", "width": 320, "height": 320} for n in range(1, 41)]
    content = {"images": images, "annotations": entries, "categories": [{"id": 1, "name": "raccoon"}]}
    (tmp_path / "train.json").write_text(json.dumps(content))
    data = CocoDataset(tmp_path / "train.json", tmp_path)

    def reached(config):
        anchors, strides = config.model.anchors, anchor_strides(config.model)
        iou = torchvision_best_iou(np.array(boxes), (320, 320), anchors.sizes, anchors.aspect_ratios, strides)
        return (iou >= 0.5).mean()

    config = composed("experiment=finetune_small")
    (note,) = anchor_notes(config.model, data)
    assert f"{reached(config):.0%} of the training boxes" in note
    assert reached(config) < 0.2
    arguments = re.search(r"`python .*? \.\.\. (.*)`", note)[1].split()
    mended = composed("experiment=finetune_small", *arguments)
    assert reached(mended) >= 0.9
    assert anchor_notes(mended.model, data) == []

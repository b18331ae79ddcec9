"""The reader and the loaders on real photographs."""

import json

import pytest
import torch

from detector.config.defaults import default
from detector.config.schema import AugmentConfig, DataConfig
from detector.data.datamodule import DetectionDataModule


@pytest.fixture
def bccd(shared_dir):
    data = default(
        DataConfig, name="coco", root=str(shared_dir / "data" / "bccd"), workers=0, batch_size=4, eval_batch_size=4
    )
    module = DetectionDataModule(
        data, default(AugmentConfig, scale_jitter=[0.7, 1.4], iou_crop=0.5, photometric=0.5), 0
    )
    module.setup()
    return module


def test_counts_and_classes(bccd):
    assert bccd.class_names == ["RBC", "WBC", "Platelets"]
    assert bccd.category_ids == [1, 2, 3]
    assert (len(bccd.train_dataset), len(bccd.val_dataset)) == (205, 87)
    assert (bccd.train_dataset.used.sum(), bccd.val_dataset.used.sum()) == (2804, 1137)
    assert bccd.train_dataset.problems == []
    assert set(bccd.train_dataset.sizes) == {(480, 640)}


def test_targets_equal_the_file(bccd):
    content = json.loads(bccd.val_dataset.annotations.read_text())
    for index in range(0, 87, 10):
        target = bccd.val_dataset.target(index)
        own = [a for a in content["annotations"] if a["image_id"] == content["images"][index]["id"]]
        assert target["boxes"].tolist() == [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in own)]
        assert target["labels"].tolist() == [a["category_id"] for a in own]
        assert target["area"].tolist() == [a["area"] for a in own]


def test_a_batch(bccd):
    images, targets = next(iter(bccd.train_dataloader()))
    for image, target in zip(images, targets, strict=True):
        assert image.dtype == torch.float32
        assert 0.2 < image.mean() < 0.95
        assert (target["boxes"][:, 2:] > target["boxes"][:, :2]).all()
        assert target["labels"].min() >= 1
    images, _ = next(iter(bccd.val_dataloader()))
    assert [tuple(image.shape) for image in images] == [(3, 480, 640)] * 4

"""Transforms of the user's own: torchvision's, plain functions, and what is wrong with some."""

import random

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from detector.config.schema import Config
from detector.data.datamodule import DetectionDataModule, configuration
from detector.data.transforms import OwnTransform
from detector.exceptions import ConfigError, DataError


def sample():
    image = torch.zeros(3, 20, 40)
    image[:, 4:10, 6:16] = 1
    boxes = torch.tensor([[6.0, 4.0, 16.0, 10.0], [30.0, 2.0, 38.0, 18.0]])
    target = {"boxes": boxes, "labels": torch.tensor([1, 2]), "image_id": torch.tensor(7),
              "area": torch.tensor([60.0, 100.0]), "iscrowd": torch.zeros(2, dtype=torch.int64)}  # fmt: skip
    return image, target


def test_torchvisions_flip_by_hand():
    image, target = sample()
    new, made = OwnTransform(v2.RandomHorizontalFlip(p=1))(image, target)
    assert type(new) is type(made["boxes"]) is torch.Tensor
    assert torch.equal(new, image.flip(-1))
    assert made["boxes"].tolist() == [[24, 4, 34, 10], [2, 2, 10, 18]]
    assert (made["labels"].tolist(), made["area"].tolist(), int(made["image_id"])) == ([1, 2], [60, 128], 7)


def test_boxes_are_cut_at_the_image_and_removed_outside_it():
    """The left half: one box stays, the other is gone; what torchvision sanitises is not counted twice."""
    crop = lambda image, target: (image[..., :20], {**target, "boxes": target["boxes"] + 6})
    _, made = OwnTransform(crop)(*sample())
    assert made["boxes"].tolist() == [[12, 10, 20, 16]]
    assert [made[key].tolist() for key in ("labels", "area", "iscrowd")] == [[1], [48], [0]]
    sanitised = v2.Compose([v2.RandomZoomOut(p=1), v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes()])
    _, made = OwnTransform(sanitised)(*sample())
    assert len(made["boxes"]) == len(made["labels"]) == len(made["area"]) == 2


def test_the_function_sees_an_image_and_boxes_and_leaves_ours_alone():
    image, target = sample()
    seen = []

    def change(picture, truth):
        seen.append((type(picture), type(truth["boxes"]), tuple(truth["boxes"].canvas_size)))
        picture += 1
        return picture, truth

    OwnTransform(change)(image, target)
    assert seen == [(tv_tensors.Image, tv_tensors.BoundingBoxes, (20, 40))]
    assert image.max() == 1


def test_all_generators_follow_pytorchs():
    drawn = []
    transform = OwnTransform(lambda image, target: drawn.append((random.random(), np.random.rand())) or (image, target))
    before = random.getstate(), np.random.get_state()[1].tolist()
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        transform(*sample())
    assert drawn[0] == drawn[1] != drawn[2]
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda image, target: image, "must return .image, target."),
        (lambda image, target: (image, {"labels": target["labels"]}), "KeyError: 'boxes'"),
        (lambda image, target: (image, {**target, "labels": target["labels"][:1]}), "2 boxes and 1 labels"),
        (lambda image, target: ((image * 255).byte(), target), r"an image of torch\.uint8"),
        (lambda image, target: (image.numpy(), target), "an image of ndarray"),
    ],
)
def test_what_cannot_be_used(function, words):
    with pytest.raises(DataError, match=words):
        OwnTransform(function)(*sample())


def test_training_images_only(write_coco, tmp_path):
    write_coco([(1, 1, (5, 5, 20, 20))])
    write_coco([(1, 1, (5, 5, 20, 20))], name="val.json")
    data = DetectionDataModule({"name": "coco", "root": tmp_path, "workers": 0, "batch_size": 1},
                               transform=lambda image, target: (image * 0 + 0.5, target))  # fmt: skip
    assert data.class_names == ["cat", "dog"]  # read when they are asked for
    images, _ = next(iter(data.train_dataloader()))
    assert torch.equal(images[0], torch.full_like(images[0], 0.5))
    images, _ = next(iter(data.val_dataloader()))
    assert not torch.equal(images[0], torch.full_like(images[0], 0.5))


def test_what_the_data_may_be_given_as(tmp_path):
    by_path, by_keys = configuration(str(tmp_path)), configuration({"name": "coco", "root": str(tmp_path)})
    assert by_path.data == by_keys.data
    assert (by_path.data.name, by_path.data.batch_size, by_path.data.workers) == ("coco", 2, 4)  # those of coco.yaml
    assert configuration({"batch_size": 3}).data.name == "shapes"
    whole = configuration({"data": {"batch_size": 3}, "seed": 5, "trainer": {"limit_eval_images": 4}})
    module = DetectionDataModule(whole)
    assert (module.batch_size, module.seed, module.limit_eval_images) == (3, 5, 4)
    module.batch_size = 6
    assert (module.data.batch_size, whole.data.batch_size) == (6, 3)
    assert configuration(whole.data).data == whole.data
    assert isinstance(configuration({}), Config)
    with pytest.raises(ConfigError, match="batch_size"):
        configuration({"batch_sise": 3, "name": "coco"})

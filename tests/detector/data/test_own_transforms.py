"""Transforms of the user's own: torchvision's, plain functions, and what is wrong with some."""

import random

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from detector.config.defaults import configuration
from detector.config.schema import Config
from detector.data.datamodule import DetectionDataModule
from detector.data.own_transforms import OwnTransform
from detector.exceptions import ConfigError, TransformError


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
        picture.fill_(1)
        return picture, truth

    OwnTransform(change)(image, target)
    assert seen == [(tv_tensors.Image, tv_tensors.BoundingBoxes, (20, 40))]
    assert image.min() == 0


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
        (lambda image, target: image, "must return an image and a target"),
        (lambda image, target: (image, {"labels": target["labels"]}), "KeyError: 'boxes'"),
        (lambda image, target: (image, {**target, "labels": target["labels"][:1]}), "2 boxes and 1 labels"),
        (lambda image, target: (image * 255, target), "values from 0 to 255"),
        (lambda image, target: (image * float("nan"), target), "values from nan"),
        (lambda image, target: (image[:1], target), r"\[1, 20, 40\]"),
        (lambda image, target: (image.double(), target), "float64"),
        (lambda image, target: (image[:, :0], target), r"\[3, 0, 40\]"),
        (lambda image, target: (image.numpy(), target), "image is a numpy.ndarray"),
        (lambda image, target: (image, {**target, "boxes": target["boxes"] / 0}), "not finite"),
        (
            lambda image, target: (image, {**target, "boxes": target["boxes"][:, [2, 1, 0, 3]]}),
            r"box 0 is \[16\.0, 4\.0, 6\.0, 10\.0\].*xywh",
        ),
        (lambda image, target: (image, {**target, "labels": target["labels"] + 0.5}), "no whole numbers"),
        (v2.Normalize([0.5] * 3, [0.1] * 3), "values from -5 to 5"),
    ],
)
def test_what_cannot_be_used(function, words):
    with pytest.raises(TransformError, match=f"image 7.*{words}"):
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


def test_images_of_bytes_become_floats():
    new, _ = OwnTransform(lambda image, target: ((image * 255).byte(), target))(*sample())
    assert torch.equal(new, sample()[0])


def test_what_a_resize_with_overshoot_gives_is_clipped():
    """Lanczos and bicubic weights are negative beside an edge: values a little outside 0..1 are no mistake."""
    new, _ = OwnTransform(lambda image, target: (image * 1.2 - 0.1, target))(*sample())
    assert (new.min(), new.max()) == (0, 1)


def test_boxes_of_less_than_a_pixel_are_removed_as_torchvision_does():
    squeeze = lambda image, target: (image, {**target, "boxes": target["boxes"] * torch.tensor([0.12, 1, 0.12, 1])})
    _, made = OwnTransform(squeeze)(*sample())
    expected, _ = v2.SanitizeBoundingBoxes(labels_getter=None)(
        tv_tensors.BoundingBoxes([[0.72, 4, 1.92, 10], [3.6, 2, 4.56, 18]], format="XYXY", canvas_size=(20, 40)), None
    )
    assert torch.allclose(made["boxes"], expected.as_subclass(torch.Tensor))
    assert made["labels"].tolist() == [1]


# ---------------------------------------------------------------------------------------------- albumentations
@pytest.fixture
def albumentations():
    return pytest.importorskip("albumentations")


def test_albumentations_flip_by_hand(albumentations):
    image, target = sample()
    new, made = OwnTransform(albumentations.HorizontalFlip(p=1))(image, target)
    assert torch.equal(new, image.flip(-1))
    assert torch.allclose(made["boxes"], torch.tensor([[24.0, 4, 34, 10], [2, 2, 10, 18]]))  # in shares on the way
    assert torch.allclose(made["area"], torch.tensor([60.0, 128]))
    assert (made["labels"].tolist(), int(made["image_id"])) == ([1, 2], 7)


def test_albumentations_leaves_the_pixels_of_files_alone(albumentations):
    """There and back through 8 bits, every value is the same to the bit."""
    image = (torch.arange(3 * 16 * 16) % 256).reshape(3, 16, 16).float() / 255
    new, _ = OwnTransform(albumentations.NoOp())(image, sample()[1])
    assert torch.equal(new, image)


def test_albumentations_crops_and_images_without_boxes(albumentations):
    image, target = sample()
    crop = albumentations.Compose([albumentations.Crop(0, 0, 34, 20)])
    new, made = OwnTransform(crop)(image, target)
    assert new.shape == (3, 20, 34)
    assert made["boxes"].tolist() == [[6, 4, 16, 10], [30, 2, 34, 18]]
    params = albumentations.BboxParams("coco", label_fields=["any"], min_visibility=0.6)  # half of the second is left
    _, made = OwnTransform(albumentations.Compose([albumentations.Crop(0, 0, 34, 20)], bbox_params=params))(*sample())
    assert (made["boxes"].tolist(), made["labels"].tolist()) == ([[6, 4, 16, 10]], [1])
    empty = {key: value if key == "image_id" else value[:0] for key, value in target.items()}
    _, made = OwnTransform(crop)(image, empty)
    assert {key: tuple(value.shape) for key, value in made.items()} == {
        "boxes": (0, 4), "labels": (0,), "image_id": (), "area": (0,), "iscrowd": (0,),
    }  # fmt: skip


def test_albumentations_draws_follow_pytorchs_and_are_independent(albumentations):
    """Two flips of probability a half: all four outcomes come; given one seed both would always agree."""
    flips = OwnTransform(albumentations.Compose([albumentations.HorizontalFlip(), albumentations.VerticalFlip()]))
    outcomes = []
    for seed in [*range(40), *range(40)]:
        torch.manual_seed(seed)
        new, _ = flips(*sample())
        outcomes.append((bool(new[0, :, :20].any()), bool(new[0, :10].any())))
    assert outcomes[:40] == outcomes[40:]
    assert len(set(outcomes)) == 4


def test_albumentations_mistakes(albumentations):
    with pytest.raises(TransformError, match=r"Normalize, image 7: .* values from -2"):
        OwnTransform(albumentations.Normalize())(*sample())
    with pytest.raises(TransformError, match=r"Crop, image 7: CropSizeError"):
        OwnTransform(albumentations.RandomCrop(100, 100))(*sample())


# ------------------------------------------------------------------------------------------- augment.transforms
OWN = [
    {"_target_": "own_parts.Shift", "most": 9},
    {"_target_": "torchvision.transforms.v2.RandomHorizontalFlip"},
    {"_target_": "albumentations.Compose", "transforms": [
        {"_target_": "albumentations.RandomScale", "p": 0.5},
        {"_target_": "albumentations.GaussNoise", "p": 1.0},
    ]},
]  # fmt: skip


def batches(write_coco, transforms, count=4, **data):
    write_coco([(n, 1 + n % 2, (5 + n, 5, 20, 20)) for n in range(1, 5)])
    root, _ = write_coco([(1, 1, (5, 5, 20, 20))], name="val.json")
    keys = {"name": "coco", "root": str(root.parent), "workers": 0, "batch_size": 2, **data}
    module = DetectionDataModule({"data": keys, "seed": 3, "augment": {"transforms": transforms, "iou_crop": 0.5}})
    module.setup()
    return [batch for _, batch in zip(range(count), module.train_dataloader(), strict=False)]


def flat(batches):
    return [tensor for images, targets in batches for tensor in [*images, *(v for t in targets for v in t.values())]]


def test_same_seed_same_images_in_any_process(write_coco, albumentations):
    one, two, parallel = (flat(batches(write_coco, OWN, workers=workers)) for workers in (0, 0, 2))
    assert len(one) == len(two) == len(parallel)
    assert all(map(torch.equal, one, two))
    assert all(map(torch.equal, one, parallel))
    assert not all(map(torch.equal, one, flat(batches(write_coco, []))))


def test_they_come_after_ours_and_draw_by_themselves(write_coco):
    """Another one behind it does not change what a transform draws."""
    count = {"_target_": "torchvision.transforms.v2.RandomPhotometricDistort", "p": 1.0}
    shift = OWN[0]
    alone, both = flat(batches(write_coco, [shift])), flat(batches(write_coco, [shift, count]))
    boxes = [(a, b) for a, b in zip(alone, both, strict=True) if a.shape[-1:] == (4,)]
    assert boxes
    assert all(torch.equal(a, b) for a, b in boxes)


@pytest.mark.parametrize(
    ("node", "workers", "words"),
    [
        ({"_target_": "own_parts.failing", "_partial_": True}, 1, r"\[1\]: own_parts.failing, image \d: ZeroDivision"),
        ({"_target_": "own_parts.failing", "_partial_": True}, 0, r"no such luck .*own_parts.py:"),
        ({"_target_": "torchvision.transforms.RandomHorizontalFlip"}, 0, r"\[1\]: torchvision.*image \d: TypeError"),
        ({"_target_": "own_parts.relabelled", "_partial_": True}, 0, r"image \d has the label [67] .*1\.\.2"),
    ],
)
def test_a_failing_transform_ends_the_run_and_is_no_damaged_image(write_coco, node, workers, words):
    with pytest.raises(TransformError, match=words) as caught:
        batches(write_coco, [OWN[1], node], on_error="skip", workers=workers)
    assert "on_error" not in str(caught.value)


@pytest.mark.parametrize(
    ("transforms", "words"),
    [
        ([{"_target_": "own_parts.Shift"}], r"augment.transforms\[0\]: own_parts.Shift needs the argument most"),
        ([OWN[0], {"_target_": "own_parts.Drift"}], r"augment.transforms\[1\]: own_parts.Drift"),
        ([{"_target_": "own_parts.Drawn", "split": "x"}], r"augment.transforms\[0\]: own_parts.Drawn made"),
        ([{"most": 3}], r"augment.transforms\[0\].*_target_"),
        (OWN[0], r"augment.transforms.*must be a list"),
    ],
)
def test_transforms_that_cannot_be_built(transforms, words):
    with pytest.raises(ConfigError, match=words):
        DetectionDataModule({"augment": {"transforms": transforms}})

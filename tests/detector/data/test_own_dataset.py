"""Data sets of the user's own as ``data.name``: what is read of them, and what is wrong with some."""

import numpy as np
import own_parts
import pytest
import torch

from detector.data.datamodule import DetectionDataModule
from detector.data.splits import find_split, fingerprint
from detector.data.transforms import AugmentedDataset
from detector.exceptions import ConfigError, DataError


def node(name="Drawn", **arguments):
    return {"_target_": f"own_parts.{name}", **arguments}


def module(name="Drawn", data=(), augment=(), **arguments):
    keys = {"name": node(name, **arguments), "workers": 0, "batch_size": 2, **dict(data)}
    return DetectionDataModule({"data": keys, "seed": 3, "augment": dict(augment)})


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_items_are_those_of_the_class(dtype):
    data = module(dtype=dtype)
    data.setup()
    assert data.class_names == ["cat", "dog"]
    assert (len(data.train_dataset), len(data.val_dataset)) == (7, 7)
    assert data.train_dataset.box_counts.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert data.shared_images == 0
    for name, dataset in (("train", data.train_dataset), ("val", data.val_dataset)):
        for index, (image, target) in enumerate(dataset):
            pixels, truth = own_parts.Drawn(name)[index]
            assert torch.equal(image, pixels.float() / 255)
            assert torch.equal(target["boxes"], truth["boxes"])
            assert torch.equal(target["labels"], truth["labels"])
            assert int(target["image_id"]) == index
            sides = truth["boxes"][:, 2:] - truth["boxes"][:, :2]
            assert torch.allclose(target["area"], sides.prod(dim=1))
            assert target["iscrowd"].tolist() == [0] * len(sides)


def test_sizes_and_targets_save_reading_the_images(monkeypatch):
    monkeypatch.setattr(own_parts.Quick, "read", 0)
    data = module("Quick", count=9)
    data.setup()
    assert own_parts.Quick.read == 2  # the first of each split, which is looked at
    assert data.train_dataset.sizes == [(48, 32), (40, 60)] * 4 + [(48, 32)]
    assert data.train_dataset.image_ids == list(range(1000, 991, -1))
    # Labels follow the category ids, of which the class gives 7 to cat and 3 to dog.
    assert (data.category_ids, data.class_names) == ([3, 7], ["dog", "cat"])
    _, target = data.train_dataset[1]
    assert (target["labels"].tolist(), int(target["image_id"])) == ([1], 999)
    assert own_parts.Drawn("train")[1][1]["labels"].tolist() == [2]


def test_loaders_and_augmentation_as_with_files():
    """Batches by the seed, in any number of processes, with mosaics and objects of other images."""
    augment = {"mosaic": 0.5, "copy_paste": 0.5}
    loaded = []
    for workers in (0, 2):
        data = module(data={"workers": workers}, augment=augment)
        data.setup()
        batches = [batch for batch, _ in zip(data.train_dataloader(), range(3), strict=False)]
        loaded.append([tensor for images, targets in batches for tensor in [*images, *(t["boxes"] for t in targets)]])
    assert all(map(torch.equal, *loaded))
    data.augment.config.mosaic = 1.0
    _, target = AugmentedDataset(data.train_dataset, data.augment, 0)[0, 0]
    assert len(target["boxes"])  # of the other images: image 0 has none


def test_keys_of_the_data_group():
    data = module(data={"keep_empty": False, "overfit_images": 3})
    data.setup()
    assert [data.train_dataset.name_of(i) for i in range(3)] == [
        f"item {i} of own_parts.Drawn (train)" for i in (1, 2, 4)
    ]
    assert data.val_image_ids == [1, 2, 4]
    image, target = data.val_dataset[2]
    assert torch.equal(image, own_parts.Drawn("train")[4][0].float() / 255)
    assert len(target["boxes"]) == 1
    dropped = module(data={"drop_categories": ["dog"]})
    assert dropped.class_names == ["cat"]
    assert dropped.train_dataset.class_counts == [2]


def test_identity_changes_with_the_boxes():
    one, same, other = module(), module(), module(changes={"boxes": [[2.0, 3.0, 20.5, 31.0]]})
    for data in (one, same, other):
        data.setup()
    assert one.identity == same.identity
    assert one.identity["train"]["digest"] != other.identity["train"]["digest"]
    assert one.identity["train"] == {**other.identity["train"], "digest": one.identity["train"]["digest"]}


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("Nothing", {}, r"data.name: own_parts.Nothing: own_parts has no Nothing"),
        ("Drawn", {"cuont": 3}, "no argument cuont .*did you mean count"),
        ("no_classes", {}, "no_classes: .*split='train' has no class_names"),
        ("Restless", {}, "Restless .train.: item 0 draws random numbers.*augment.transforms"),
    ],
)
def test_classes_that_cannot_be_used(name, arguments, words):
    with pytest.raises(ConfigError, match=words):
        module(name, **arguments).setup()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_item_that_fails_is_named_with_the_line(workers):
    with pytest.raises(DataError, match=r"Broken .train.: item 4: OSError: the disk is gone .*own_parts.py:\d+"):
        module("Broken", data={"workers": workers}).setup()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": [0]}, "item 1 has the label 0; labels are 1..2"),
        ({"labels": [3]}, "item 1 has the label 3"),
        ({"labels": [1, 2]}, "item 1 has 1 boxes and 2 labels"),
        ({"iscrowd": [0, 0]}, "item 1 has 1 boxes and 2 numbers in iscrowd"),
        ({"boxes": [1, 2, 3]}, "item 1: RuntimeError"),
        ({"boxes": [[30, 3, 20, 30]]}, r"item 1 .*box 0 is \[30\.0, 3\.0, 20\.0, 30\.0\].*xywh"),
        ({"boxes": [[3, 3, float("nan"), 30]]}, "item 1 .*not finite"),
        ({"image_id": 0}, "item 1 has the image_id 0 of an item before it|item 1.*image_id"),
        ({"boxes": [[2, 3, 2, 30]]}, r"train\[1\].*the box has no area"),
        ({"boxes": [[2, 3, 90, 30]]}, r"train\[1\].*the box leaves its image of 60 x 40"),
    ],
)
def test_targets_that_cannot_be_used(changes, words):
    with pytest.raises(DataError, match=words):
        module(changes=changes).setup()


def test_wrong_boxes_may_be_left_out_or_clipped():
    boxes = {"boxes": [[2, 3, 90, 30], [5, 5, 5, 9]], "labels": [1, 2]}
    dropped, clipped = (module(data={"on_invalid": what}, changes=boxes) for what in ("drop", "clip"))
    for data in (dropped, clipped):
        data.setup()
    assert len(dropped.train_dataset[1][1]["boxes"]) == 0
    assert clipped.train_dataset[1][1]["boxes"].tolist() == [[2, 3, 60, 30]]


def test_another_size_than_before():
    data = module("Growing")
    data.setup()
    with pytest.raises(DataError, match=r"item 6 of own_parts.Growing \(train\) is 32 x 47 pixels .* 32 x 48"):
        data.train_dataset[6]


def test_nothing_is_imported_to_name_a_data_set():
    data = module("Nothing").data
    assert str(find_split(data, "val").annotations) == "own_parts.Nothing (val)"
    assert fingerprint(data) == "own_parts.Nothing"


def test_draws_of_the_data_set_are_looked_for_in_all_generators(monkeypatch):
    for draw in (lambda: np.random.rand(), lambda: torch.rand(1)):
        monkeypatch.setattr(own_parts.Drawn, "size", lambda self, index, draw=draw: (draw(), (40, 60))[1])
        with pytest.raises(ConfigError, match="item 0 draws"):
            module().setup()

"""Data sets, and transforms, that a user might write; the tests name them as ``_target_``."""

import random

import numpy as np
import torch
from torchvision import tv_tensors


class Drawn(torch.utils.data.Dataset):
    """Images of noise with one or two boxes in each; every third has none."""

    class_names = ("cat", "dog")

    def __init__(self, split, count=7, dtype="uint8", changes=None):
        self.split, self.count, self.dtype, self.changes = split, count, dtype, changes or {}

    def __len__(self):
        return self.count

    def size(self, index):
        return (40, 60) if index % 2 else (48, 32)

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index + 100 * (self.split == "val"))
        image = torch.randint(0, 256, (3, *self.size(index)), dtype=torch.uint8, generator=generator)
        target = {"boxes": torch.tensor([[2.0, 3.0, 20.5, 30.0], [5.0, 5.0, 30.0, 38.0]])[: index % 3],
                  "labels": torch.tensor([2, 1])[: index % 3]}  # fmt: skip
        target |= {key: value for key, value in self.changes.items() if index == 1}
        return image if self.dtype == "uint8" else image.float() / 255, target


class Quick(Drawn):
    """With sizes and targets that need no image, and image ids of its own."""

    read = 0
    category_ids = (7, 3)

    @property
    def sizes(self):
        return [self.size(i) for i in range(len(self))]

    def target(self, index):
        return {**Drawn.__getitem__(self, index)[1], "image_id": 1000 - index}

    def __getitem__(self, index):
        type(self).read += 1
        return Drawn.__getitem__(self, index)


class Restless(Drawn):
    """Changes its images at random."""

    def __getitem__(self, index):
        image, target = super().__getitem__(index)
        return (image.flip(-1) if random.random() < 0.5 else image), target


class Broken(Drawn):
    """Cannot read one image."""

    def __getitem__(self, index):
        if index == 4:
            raise OSError("the disk is gone")
        return super().__getitem__(index)


class Growing(Drawn):
    """Gives another size the second time that it is asked for the last image."""

    asked = 0

    def __getitem__(self, index):
        image, target = super().__getitem__(index)
        if index == 6:
            self.asked += 1
            image = image if self.asked == 1 else image[:, :-1]
        return image, target


def no_classes(split):
    return [1, 2, 3]


# ------------------------------------------------------------------------------------------------- transforms
class Shift:
    """Moves the picture by a few pixels that all three generators draw."""

    def __init__(self, most):
        self.most = most

    def __call__(self, image, target):
        assert isinstance(target["boxes"], tv_tensors.BoundingBoxes)
        by = random.randint(0, self.most) + np.random.randint(self.most) + int(torch.randint(self.most, ()))
        return image.roll(by, dims=-1), {**target, "boxes": target["boxes"] + torch.tensor([by, 0, by, 0])}


def relabelled(image, target):
    return image, {**target, "labels": target["labels"] + 5}


def failing(image, target):
    raise ZeroDivisionError("no such luck")

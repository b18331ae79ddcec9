"""Data sets, transforms, callbacks and a logger that a user might write; the tests name them as ``_target_``."""

import json
import random
from datetime import datetime
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
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


# --------------------------------------------------------------------------------------- callbacks and loggers
class Count(pl.Callback):
    """Counts batches and evaluations, and logs how many."""

    def __init__(self):
        self.batches = self.evaluations = 0

    def on_train_batch_end(self, trainer, module, *args):
        self.batches += 1
        module.log("mine/batches", float(self.batches))

    def on_validation_end(self, trainer, module):
        self.evaluations += 1

    def state_dict(self):
        return {"batches": self.batches, "evaluations": self.evaluations}

    def load_state_dict(self, state):
        self.__dict__.update(state)


class Secret(pl.Callback):
    """With a state that only pickle can hold."""

    def state_dict(self):
        return {"when": datetime.now()}


class Kept(Logger):
    """Keeps what it is told in a file in the run's folder."""

    name, version = "kept", ""

    def __init__(self, save_dir, file="kept.jsonl"):
        super().__init__()
        self.file = Path(save_dir) / file

    def _keep(self, **content):
        with self.file.open("a") as file:
            file.write(json.dumps(content) + "\n")

    def log_hyperparams(self, params, *args, **kwargs):
        self._keep(config=params["config"]["seed"])

    def log_metrics(self, metrics, step=None):
        self._keep(step=step, metrics=sorted(metrics))


class FullTable(Logger):
    """Fails in training."""

    name, version = "broken", ""

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        raise RuntimeError("the table is full")

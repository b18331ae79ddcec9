"""A data set, a callback and torchvision's transforms in a training, by the names of their classes."""

import pytorch_lightning as pl
import torch

import detector


class Squares(torch.utils.data.Dataset):
    class_names = ("dark", "bright")

    def __init__(self, split, side):
        self.length, self.box = (6 if split == "train" else 2), torch.tensor([[8.0, 8.0, 8.0 + side, 8.0 + side]])

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return torch.full((3, 64, 64), 0.2 + index % 2 / 2), {"boxes": self.box, "labels": [1 + index % 2]}


class Say(pl.Callback):
    def on_fit_end(self, trainer, module):
        print("steps", trainer.global_step, module.class_names)


if __name__ == "__main__":
    own = {"augment.transforms": [{"_target_": "torchvision.transforms.v2.RandomVerticalFlip"}], "run_dir": "run"}
    own |= {"data.name": {"_target_": "squares.Squares", "side": 32}, "callbacks": {"say": {"_target_": "squares.Say"}}}
    detector.train(**own, max_steps=3, warmup_steps=1)

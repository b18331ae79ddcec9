"""Networks of a user's."""

import torch
from torch import nn


class Net(nn.Module):
    """Two maps of stride 4 and one of stride 8, and a weight that no map depends on."""

    image_mean, image_std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]

    def __init__(self, width=6, last=False, numbers=False, form=dict):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 4, 4), nn.BatchNorm2d(width))
        self.more, self.down = nn.Conv2d(width, width, 1), nn.Conv2d(width, 2 * width, 2, 2)
        self.unused = nn.Parameter(torch.zeros(3))
        self.last, self.numbers, self.form = last, numbers, form

    def forward(self, images):
        first = self.stem(images)
        if self.numbers and first.sum().item() == 0:
            return {}
        maps = {"a": first, "b": self.more(first), "c": self.down(first), "pooled": first.mean((2, 3))}
        maps = {key: m.permute(0, 2, 3, 1) if self.last and m.ndim == 4 else m for key, m in maps.items()}
        return maps if self.form is dict else list(maps.values()) if self.form is list else maps["c"]


class Valid(nn.Module):
    """A map of stride 4 that is a cell short on each side."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 4, 4)

    def forward(self, images):
        return self.conv(images)[:, :, 1:-1, 1:-1]


class Flat(nn.Module):
    """A vector, no map."""

    def forward(self, images):
        return images.mean((2, 3))


class Inside(nn.Module):
    """A network whose names all begin with ``model.``."""

    def __init__(self):
        super().__init__()
        self.model = Net()

    def forward(self, images):
        return self.model(images)

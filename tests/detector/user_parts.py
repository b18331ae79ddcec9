"""What users write: classes that a configuration names."""

import torch
from torch import nn
from torchvision.ops import MultiScaleRoIAlign

MADE = []  # arguments of each Noted


class Noted:
    """Keeps what it is called with."""

    def __init__(self, *args, size=1, **kwargs):
        self.args, self.size, self.kwargs = args, size, kwargs
        MADE.append(self)


class Plain:
    def __init__(self, first, second=2, *, third=3):
        self.given = (first, second, third)


class Failing:
    def __init__(self):
        raise KeyError("nothing there")


class Pooler(nn.Module):
    """torchvision's RoIAlign with a factor that learns, and which draws a random number."""

    def __init__(self, featmap_names, output_size, sampling_ratio, gain=0.5):
        super().__init__()
        self.align = MultiScaleRoIAlign(featmap_names, output_size, sampling_ratio)
        self.gain = nn.Parameter(torch.full((1,), gain))
        self.drawn = nn.Parameter(torch.rand(1))
        self.calls = 0

    def forward(self, features, proposals, image_sizes):
        self.calls += 1
        return self.align(features, proposals, image_sizes) * self.gain


class Scaled(nn.Module):
    """Takes what only some operators ask for; has no weights."""

    def __init__(self, featmap_names, output_size, sampling_ratio, spatial_scales, canonical_level):
        super().__init__()
        self.facts = (featmap_names, output_size, sampling_ratio, spatial_scales, canonical_level)

    def forward(self, features, proposals, image_sizes):
        boxes, name = sum(map(len, proposals)), self.facts[0][0]
        return features[name].mean().expand(boxes, features[name].shape[1], *self.facts[1])


class Transposed(Pooler):
    def forward(self, features, proposals, image_sizes):
        return super().forward(features, proposals, image_sizes).flatten(1)


class Crashing(Pooler):
    def forward(self, features, proposals, image_sizes):
        raise RuntimeError("no kernel for this")


class Unexportable(Pooler):
    """Works, and cannot be traced: it is Python that decides by values."""

    def forward(self, features, proposals, image_sizes):
        if float(sum(boxes.sum() for boxes in proposals).detach().numpy()) < 0:
            raise AssertionError
        return super().forward(features, proposals, image_sizes)


def half_life(optimizer, total_steps, floor=0.0):
    """A scheduler from a function."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.5 ** (4 * step / total_steps), floor))


class Nesterov(torch.optim.SGD):
    """SGD in all but its arguments."""

    def __init__(self, params, lr, momentum=0.9):
        super().__init__(params, lr, momentum=momentum, nesterov=True)

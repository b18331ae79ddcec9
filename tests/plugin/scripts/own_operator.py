"""A RoI operator of one's own, trained with the command of the package, and a checkpoint that is told to be trusted."""

import os
import sys

import torch
from torchvision.ops import roi_align

import detector


class FinestMap(torch.nn.Module):
    def __init__(self, featmap_names, output_size, sampling_ratio, spatial_scales, gain=1.0):
        super().__init__()
        self.map, self.scale, self.size, self.gain = featmap_names[0], spatial_scales[0], output_size, gain

    def forward(self, features, proposals, image_sizes):
        return self.gain * roi_align(features[self.map], proposals, self.size, self.scale, 2)


if __name__ == "__main__":
    keys = ["debug=fast", "roi.kind._target_=own_operator.FinestMap", "roi.kind.gain=0.5", "run_dir=run"]
    os.environ["PYTHONPATH"] = sys.path[0]
    assert os.system(f"{sys.executable} -m detector train {' '.join(keys)}") == 0
    try:
        detector.load("run")
    except detector.exceptions.CheckpointError as error:
        print(error)
    found = detector.load("run", trust="own_operator")
    print(found.config.roi.kind["gain"], len(found(torch.rand(3, 64, 64))))

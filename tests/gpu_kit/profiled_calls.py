"""The main kernels, in float32 and in bfloat16, for a profiler: ``python -m gpu_kit.profiled_calls cuda|cpu``."""

import sys

import torch

import roi_ops
from detector.benchmark.workloads import Scene


def main(device: str) -> None:
    on_gpu = device == "cuda"
    size, channels, many, few = ((800, 1088), 256, 1000, 512) if on_gpu else ((160, 224), 32, 50, 25)
    scene = Scene(size, 1, device)
    with roi_ops.use_backend(device):
        for dtype in (torch.float32, torch.bfloat16):
            maps = scene.pyramid(channels, True, dtype)
            pooler = roi_ops.MultiScaleRoIAlign(list(maps), 7, 2)
            scene.forward(pooler, maps, scene.proposals(many))()
            scene.backward(pooler, maps, scene.proposals(few))()
    if on_gpu:
        torch.cuda.synchronize()
    print("done")


if __name__ == "__main__":
    main(sys.argv[1])

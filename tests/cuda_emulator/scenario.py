"""Run the kernels on a few boxes, under a sanitizer: ``python -m cuda_emulator.scenario LIBRARY [KIND ...]``.

Every float32 kernel; of float16 and float64 those for any strides. LIBRARY is what ``build`` made, or the word
``emulator``, which stands for that of the tests, or ``cuda``: then the kernels run on the GPU. Nothing is compared
here; that is what tests/roi_ops/test_kernels.py does.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from cuda_emulator.launcher import Emulator
from roi_ops.cuda.operators import Launcher, Operators
from roi_ops.cuda.plan import CROWD
from roi_ops.geometry import LINEAR_KINDS, MAX_KINDS
from roi_ops.maps import describe

BOXES = [[0, 1.2, 0.7, 20.9, 16.1], [1, -30, -20, 44, 33], [0, 3, 4, 3, 4], [1, 9, 9, 5, 5], [0, 0, 0, 9e9, 9e9]]


def run(operators: Operators, device: str, kinds: list[str]) -> None:
    """All seven operators over types, layouts, sampling ratios and the given kinds; one spot is crowded once each."""
    generator = torch.Generator().manual_seed(0)
    few = torch.tensor(BOXES, device=device)
    many = torch.tensor([*BOXES, *[[0, 5 + 0.1 * i, 5, 12, 12 + 0.1 * i] for i in range(CROWD)]], device=device)
    cases = [(torch.float32, True, 8, (2, 0)), (torch.float32, False, 3, (2, 0)),
             (torch.float16, False, 3, (2,)), (torch.float64, False, 3, (2,))]  # fmt: skip
    for dtype, channels_last, channels, ratios in cases:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        maps = [torch.randn(2, channels, n, n + 3, generator=generator) for n in (17, 9)]
        maps = [m.to(device, dtype, memory_format=layout) for m in maps]
        box_dtype = torch.float64 if dtype == torch.float64 else torch.float32
        for kind in kinds:
            for ratio in ratios:
                boxes = (many if ratio == 2 and not channels_last else few).to(box_dtype)
                geometry = ([0.5, 0.25], kind, 2, 3, ratio, 1, 2, 28.0, 2.0)
                if kind in LINEAR_KINDS:
                    out = operators.linear_forward(maps, boxes, False, *geometry)
                    operators.linear_backward_features(out, boxes, *describe(maps), *geometry)
                    operators.linear_backward_boxes(out, maps, boxes, *geometry)
                else:
                    out, argmax = operators.max_forward(maps, boxes, False, *geometry)
                    operators.max_backward_features(out, argmax, boxes, *describe(maps), *geometry)
                    operators.max_backward_boxes(out, argmax, maps, boxes, *geometry)
                    operators.max_gather(maps, argmax, boxes, *geometry)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "cuda":
        from roi_ops.cuda.driver import Driver

        launcher: Launcher = Driver()
    elif sys.argv[1] == "emulator":
        from cuda_emulator.emulated import emulator

        launcher = emulator()
    else:
        launcher = Emulator(Path(sys.argv[1]))
    device = "cuda" if sys.argv[1] == "cuda" else "cpu"
    run(Operators(launcher), device, sys.argv[2:] or [*LINEAR_KINDS, *MAX_KINDS])
    if device == "cuda":
        torch.cuda.synchronize()
    print("done")

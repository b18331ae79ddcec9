"""Run every kernel on a few boxes: ``python -m cuda_emulator.scenario LIBRARY [KIND ...]``, under a sanitizer.

Nothing is compared here; that is what tests/roi_ops/test_cuda_operators.py does.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from cuda_emulator.launcher import Emulator
from roi_ops.cuda.operators import Operators
from roi_ops.geometry import LINEAR_KINDS, MAX_KINDS

BOXES = [[0, 1.2, 0.7, 20.9, 16.1], [1, -30, -20, 44, 33], [0, 3, 4, 3, 4], [1, 9, 9, 5, 5], [0, 0, 0, 9e9, 9e9]]


def run(library: Path, kinds: list[str]) -> None:
    """All seven operators over layouts, sampling ratios and the given kinds."""
    operators = Operators(Emulator(library))
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor(BOXES)
    for channels_last, channels in ((True, 8), (False, 3)):
        layout = torch.channels_last if channels_last else torch.contiguous_format
        maps = [torch.randn(2, channels, n, n + 3, generator=generator).to(memory_format=layout) for n in (17, 9)]
        for kind in kinds:
            for ratio in (2, 0):
                geometry = ([0.5, 0.25], kind, 2, 3, ratio, 1, 2, 28.0, 2.0)
                if kind in LINEAR_KINDS:
                    out = operators.linear_forward(maps, boxes, False, *geometry)
                    operators.linear_backward_features(out, maps, boxes, *geometry)
                    operators.linear_backward_boxes(out, maps, boxes, *geometry)
                else:
                    out, argmax = operators.max_forward(maps, boxes, False, *geometry)
                    operators.max_backward_features(out, argmax, maps, boxes, *geometry)
                    operators.max_backward_boxes(out, argmax, maps, boxes, *geometry)
                    operators.max_gather(maps, argmax, boxes, *geometry)


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), sys.argv[2:] or [*LINEAR_KINDS, *MAX_KINDS])
    print("done")

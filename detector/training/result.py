"""What a finished training run hands back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from detector.evaluation.scoring import CocoResult

LAST, BEST = "last.ckpt", "best.ckpt"  # in the folder ``checkpoints`` of a run


@dataclass
class TrainResult:
    """The numbers of a run and its folder; the same in every process of the run."""

    run_dir: Path
    result: CocoResult  # evaluation of the best weights
    best_step: int  # optimiser steps that the best weights had seen
    steps: int  # optimiser steps of the run
    seconds: float  # wall-clock time of training with its evaluations, by this process

    @property
    def objective(self) -> float:
        """AP of the best weights on the validation set, 0 to 1; NaN if there is no ground truth in it."""
        ap = self.result.metrics["AP"]
        return math.nan if ap is None else ap

    @property
    def best_checkpoint(self) -> Path:
        """The weights with the highest AP."""
        return self.run_dir / "checkpoints" / BEST

    @property
    def last_checkpoint(self) -> Path:
        """The newest weights, with all that a resumed run needs."""
        return self.run_dir / "checkpoints" / LAST

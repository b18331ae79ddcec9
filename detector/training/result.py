"""What a finished training run hands back."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.console import Group

from detector.evaluation.metrics import ClassResult
from detector.evaluation.result_tables import number
from detector.evaluation.scoring import CocoResult
from detector.outcome import Outcome
from detector.words import counted

if TYPE_CHECKING:
    from detector.inference.detector import Detector

LAST, BEST = "last.ckpt", "best.ckpt"  # in the folder ``checkpoints`` of a run
METRICS_TABLE, CURVES, SHEET = "metrics.csv", "curves.png", "predictions.png"


@dataclass(repr=False)
class TrainResult(Outcome):
    """The numbers of a run and its folder; the same in every process of the run.

    Attributes:
        folder: of the run.
        result: evaluation of the best weights.
        best_step: optimiser steps that the best weights had seen.
        steps: optimiser steps of the run.
        seconds: wall-clock time of training with its evaluations, by this process.
        trust: the classes that the configuration of the run names.
    """

    folder: Path
    result: CocoResult
    best_step: int
    steps: int
    seconds: float
    trust: str = ""

    pictures: ClassVar[tuple[str, ...]] = (CURVES, SHEET)

    def __rich__(self) -> Group:
        return Group(self.result, f"best weights after {self.best_step} of {counted(self.steps, 'step')}")

    def headline(self) -> str:
        """The AP and the length."""
        return f"AP {number(self.metrics['AP'])} after {self.best_step} of {counted(self.steps, 'step')}"

    @property
    def metrics(self) -> dict[str, float | None]:
        """COCO's twelve numbers of the best weights by name, 0 to 1; None where there is no ground truth."""
        return self.result.metrics

    @property
    def per_class(self) -> list[ClassResult]:
        """The numbers of each class, by category id."""
        return self.result.per_class

    @property
    def objective(self) -> float:
        """AP of the best weights on the validation set, 0 to 1; NaN if there is no ground truth in it."""
        ap = self.metrics["AP"]
        return math.nan if ap is None else ap

    @property
    def history(self) -> list[dict[str, float]]:
        """The rows of ``metrics.csv``: ``step``, and the numbers logged at it; no rows with ``logger.csv=false``."""
        file = self.folder / METRICS_TABLE
        if not file.is_file():
            return []
        with open(file, newline="", encoding="utf-8") as table:
            return [{name: float(text) for name, text in row.items() if text} for row in csv.DictReader(table)]

    @property
    def checkpoint(self) -> Path:
        """The weights with the highest AP."""
        return self.folder / "checkpoints" / BEST

    @property
    def last_checkpoint(self) -> Path:
        """The newest weights, with all that a resumed run needs."""
        return self.folder / "checkpoints" / LAST

    def load(self) -> Detector:
        """The detector with the best weights, as ``detector.load`` gives it; the run's own classes are trusted."""
        from detector.inference.detector import load

        return load(self.checkpoint, trust=self.trust)

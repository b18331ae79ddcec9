"""What an evaluation hands back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rich.console import Group

from detector.evaluation.diagnosis import Diagnosis
from detector.evaluation.findings import findings
from detector.evaluation.metrics import ClassResult
from detector.evaluation.result_tables import error_table, note_lines, number, operating_table
from detector.evaluation.scoring import CocoResult
from detector.outcome import Outcome

SHEET = "predictions.png"


@dataclass(frozen=True, repr=False)
class Evaluation(Outcome):
    """What came out, and where it is.

    Attributes:
        result: the numbers.
        diagnosis: what is behind them; None without a report.
        folder: with ``metrics.json`` and the report.
    """

    result: CocoResult
    diagnosis: Diagnosis | None
    folder: Path

    pictures: ClassVar[tuple[str, ...]] = (SHEET,)

    @property
    def metrics(self) -> dict[str, float | None]:
        """COCO's twelve numbers by name, 0 to 1; None where there is no ground truth."""
        return self.result.metrics

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Low and high end of the 95 % interval of each number, where it is known."""
        return self.result.intervals

    @property
    def per_class(self) -> list[ClassResult]:
        """The numbers of each class, by category id."""
        return self.result.per_class

    def headline(self) -> str:
        """The AP."""
        return f"AP {number(self.metrics['AP'])}"

    def __rich__(self) -> Group:
        if self.diagnosis is None:
            return Group(self.result)
        return Group(
            self.result,
            error_table(["AP50, count"], [self.diagnosis.errors]),
            operating_table(self.diagnosis.matches.class_names, self.diagnosis.points),
            note_lines(findings(self.diagnosis)),
        )

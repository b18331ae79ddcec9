"""What the records of a study say: the numbers of each level, paired differences, verdicts in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from detector.ablation import paired_differences
from detector.ablation.cell_record import IOUS, load_replicates
from detector.ablation.cells import Cell
from detector.ablation.paired_differences import ALPHA, PairedDifference
from detector.ablation.study import Study
from detector.evaluation.metrics import METRIC_NAMES
from detector.exceptions import DataError
from detector.words import counted

POINTS = 100  # results are given in points of AP, 0 to 100, as in papers


@dataclass(frozen=True)
class LevelComparison:
    """One level against the baseline, in one context and one number.

    Attributes:
        context: levels of the other factors; "" if there are none.
        level: of the compared factor.
        baseline: the level that it is compared with.
        metric: one of the twelve numbers, or ``"AP@0.50"`` for one IoU threshold.
        seeds: those that both levels have.
        difference: in points of AP; None without a common seed or ground truth.
        p: p-value after the correction for all differences that are judged; NaN if this one is not among them.
        family: how many differences are judged.
    """

    context: str
    level: str
    baseline: str
    metric: str
    seeds: list[int]
    difference: PairedDifference | None
    p: float = math.nan
    family: int = 0

    @property
    def name(self) -> str:
        """What is subtracted from what."""
        return f"{self.level} - {self.baseline}"

    @property
    def real(self) -> bool:
        """Whether it is more than seeds and images explain, after the correction."""
        return self.p < ALPHA

    @property
    def verdict(self) -> str:
        """``real``, or what it would take."""
        if self.difference is None:
            return "no pair of runs yet" if not self.seeds else "no ground truth"
        if self.difference.seeds < 2:
            return "not resolved: one seed does not tell how much seeds differ"
        if self.real:
            return "real"
        start = "not resolved"
        if self.difference.over_both.excludes_zero:  # the interval is of this difference alone
            start += f" among {self.family} differences (corrected p {self.p:.2g})"
        effect, alpha = self.difference.mean, ALPHA / max(self.family, 1)
        needed = paired_differences.seeds_needed(effect, self.difference.components, alpha)
        if needed is not None:
            more = max(needed - self.difference.seeds, 1)
            return f"{start}: {counted(more, 'more seed')} would be needed"
        if effect and not paired_differences.limited_by_images(effect, self.difference.components, alpha):
            return f"{start}: more than {paired_differences.MOST_SEEDS} seeds would be needed"
        images = counted(self.difference.components.image_count, "image")
        return f"{start}: no number of seeds would be enough on {images}, if it is as small as it looks"

    @property
    def sentence(self) -> str:
        """The difference in plain words."""
        where = f" at {self.context}" if self.context else ""
        if self.difference is None:
            return f"{self.name}{where}: {self.metric}: {self.verdict}."
        _, low, high = self.difference.over_both
        bounds = "" if math.isnan(low) else f" [{low:+.1f}, {high:+.1f}]"
        count = counted(self.difference.seeds, "seed")
        return f"{self.name}{where}: {self.difference.mean:+.1f} {self.metric}{bounds}, {count}: {self.verdict}."


@dataclass
class Analysis:
    """The finished cells of a study, paired and compared.

    Args:
        study: as it is on disk.

    Raises:
        DataError: runs of one context were scored on different images or objects, or a file is damaged.
    """

    study: Study
    _replicates: dict[str, dict[str, np.ndarray]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.levels = list(self.study.factors[self.study.compare])  # of the compared factor
        self.cells: dict[tuple[str, str], dict[int, Cell]] = {}
        scored: dict[str, str] = {}
        for cell in self.study.finished():
            context = self.study.context(cell.levels)
            self.cells.setdefault((context, cell.levels[self.study.compare]), {})[cell.seed] = cell
            if scored.setdefault(context, cell.record["data"]) != cell.record["data"]:
                raise DataError(
                    f"the runs at {context or self.study.config.name} were scored on different validation "
                    "images or objects and cannot be paired; compare data sets in studies of their own"
                )

    def of(self, context: str, level: str) -> dict[int, Cell]:
        """The finished cells of a level by seed."""
        return self.cells.get((context, level), {})

    def finished(self) -> Iterator[tuple[str, str, list[Cell]]]:
        """Context, level and finished cells of everything that has any, in the order of the grid."""
        for context in self.study.contexts:
            for level in self.levels:
                if cells := self.of(context, level):
                    yield context, level, list(cells.values())

    def values(self, context: str, level: str, name: str) -> dict[int, float]:
        """A number of a level by seed, in points, without runs that lack it. ``name`` as in :meth:`number`."""
        found = {seed: self.number(cell, name) for seed, cell in sorted(self.of(context, level).items())}
        return {seed: value for seed, value in found.items() if value is not None}

    def number(self, cell: Cell, name: str) -> float | None:
        """One of the twelve numbers, or AP at one IoU threshold (``"AP@0.50"``), in points."""
        value = cell.record["by_iou"].get(name) if name in IOUS else cell.record["metrics"][name]
        return None if value is None else POINTS * value

    def replicates(self, cell: Cell, name: str) -> np.ndarray:
        """The number in each resample of the images, ``[B]``, in points."""
        if cell.name not in self._replicates:
            self._replicates[cell.name] = load_replicates(cell.folder)
        stored = self._replicates[cell.name]
        return POINTS * (stored["by_iou"][IOUS.index(name)] if name in IOUS else stored[name])

    def compare(self, context: str, level: str, name: str) -> LevelComparison:
        """A level against the baseline, without the correction."""
        ours, base = self.of(context, level), self.of(context, self.study.baseline)
        mine, theirs = (self.values(context, which, name) for which in (level, self.study.baseline))
        found = None
        if paired := sorted(mine.keys() & theirs.keys()):
            differences = np.array([mine[seed] - theirs[seed] for seed in paired])
            resampled = np.stack([self.replicates(ours[s], name) - self.replicates(base[s], name) for s in paired])
            images = ours[paired[0]].record["images"]
            found = paired_differences.paired_difference(differences, resampled, images)
        return LevelComparison(context, level, self.study.baseline, name, sorted(ours.keys() & base.keys()), found)

    @cached_property
    def judged(self) -> list[LevelComparison]:
        """Every level against the baseline in the numbers that the study judges, corrected for how many there are."""
        plain = [self.compare(*pair, name) for name in self.study.config.metrics for pair in self.pairs]
        p = paired_differences.holm(np.array([math.nan if c.difference is None else c.difference.p for c in plain]))
        return [replace(c, p=value, family=len(plain)) for c, value in zip(plain, p.tolist(), strict=True)]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(context, level) of everything that is compared with the baseline."""
        others = [level for level in self.levels if level != self.study.baseline]
        return [(context, level) for context in self.study.contexts for level in others]

    @cached_property
    def described(self) -> list[LevelComparison]:
        """The differences in all twelve numbers, without verdicts."""
        return [self.compare(context, level, name) for context, level in self.pairs for name in METRIC_NAMES]

    def warnings(self) -> list[str]:
        """What may make the runs differ besides the factors, and what is missing."""
        records = [cell.record for cell in self.study.finished()]
        found = []
        for what, values in (
            ("revisions of the source", {r["git"] for r in records}),
            ("versions of PyTorch", {r["versions"]["torch"] for r in records}),
            ("versions of Python", {r["versions"]["python"] for r in records}),
            ("devices", {r["device"] for r in records}),
        ):
            if len(values) > 1:
                listed = ", ".join(value or "unknown" for value in sorted(values))
                found.append(f"The runs were made with {len(values)} {what}: {listed}.")
        if others := self.study.runs_of_other_configurations():
            found.append(f"{len(others)} finished runs in this folder belong to another configuration of the study "
                         "and are not counted.")  # fmt: skip
        return found

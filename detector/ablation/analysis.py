"""What the records of a study say: numbers of each arm, paired differences, verdicts in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from detector.ablation import statistics
from detector.ablation.record import IOUS, load_replicates
from detector.ablation.statistics import ALPHA, Difference
from detector.ablation.study import METRICS, Cell, Study
from detector.exceptions import DataError
from detector.words import counted

POINTS = 100  # numbers are told in points of AP, 0 to 100, as papers do


@dataclass(frozen=True)
class Comparison:
    """One arm against the baseline, in one context and one number.

    Attributes:
        context: levels of the other factors; "" if there are none.
        level: of the compared factor.
        baseline: its baseline level.
        metric: one of the twelve numbers, or ``"AP@0.50"`` for one IoU threshold.
        seeds: those that both arms have.
        found: the difference in points of AP; None without a common seed or ground truth.
        p: p-value after the correction for all differences that are judged; NaN if this one is not among them.
        family: how many those are.
    """

    context: str
    level: str
    baseline: str
    metric: str
    seeds: list[int]
    found: Difference | None
    p: float = math.nan
    family: int = 0

    @property
    def real(self) -> bool:
        """Whether it is more than seeds and images explain, after the correction."""
        return self.p < ALPHA

    @property
    def verdict(self) -> str:
        """``real``, or what it would take."""
        if self.found is None:
            return "no pair of runs yet" if not self.seeds else "no ground truth"
        if self.found.seeds < 2:
            return "not resolved: one seed does not tell how much seeds differ"
        if self.real:
            return "real"
        open_ = "not resolved"
        if self.found.over_both.excludes_zero:  # the interval is of this difference alone
            open_ += f" among {self.family} differences (corrected p {self.p:.2g})"
        effect, alpha = self.found.mean, ALPHA / max(self.family, 1)
        needed = statistics.seeds_needed(effect, self.found.components, alpha)
        if needed is not None:
            more = max(needed - self.found.seeds, 1)
            return f"{open_}: {counted(more, 'more seed')} would be needed"
        if effect and not statistics.limited_by_images(effect, self.found.components, alpha):
            return f"{open_}: more than {statistics.MOST_SEEDS} seeds would be needed"
        images = self.found.components.image_count
        return (
            f"{open_}: no number of seeds would be enough on {counted(images, 'image')}, if it is as small as it looks"
        )

    @property
    def sentence(self) -> str:
        """The difference in plain words."""
        where = f" at {self.context}" if self.context else ""
        start = f"{self.level} - {self.baseline}{where}: "
        if self.found is None:
            return f"{start}{self.metric}: {self.verdict}."
        count = counted(self.found.seeds, "seed")
        _, low, high = self.found.over_both
        bounds = "" if math.isnan(low) else f" [{low:+.1f}, {high:+.1f}]"
        return f"{start}{self.found.mean:+.1f} {self.metric}{bounds}, {count}: {self.verdict}."


@dataclass
class Analysis:
    """The finished cells of a study, paired and compared.

    Args:
        study: as it is on disk.

    Raises:
        DataError: runs of one context were scored on different images or objects, or a file is damaged.
    """

    study: Study

    def __post_init__(self) -> None:
        self.cells: dict[tuple[str, str], dict[int, Cell]] = {}
        for cell in self.study.finished():
            key = (self.study.context(cell.arm), cell.arm[self.study.compare])
            self.cells.setdefault(key, {})[cell.seed] = cell
        for context in self.study.contexts:
            data = {cell.record["data"] for (where, _), cells in self.cells.items() if where == context
                    for cell in cells.values() if cell.record}  # fmt: skip
            if len(data) > 1:
                raise DataError(
                    f"the runs at {context or self.study.config.name} were scored on different validation "
                    "images or objects and cannot be paired; compare data sets in studies of their own"
                )

    @property
    def levels(self) -> list[str]:
        """Of the compared factor."""
        return list(self.study.factors[self.study.compare])

    def of(self, context: str, level: str) -> dict[int, Cell]:
        """The finished cells of an arm by seed."""
        return self.cells.get((context, level), {})

    def values(self, context: str, level: str, name: str) -> dict[int, float]:
        """A number of an arm by seed, in points; runs without it left out. ``name`` as in :func:`number`."""
        found = {seed: self.number(cell, name) for seed, cell in sorted(self.of(context, level).items())}
        return {seed: value for seed, value in found.items() if value is not None}

    def number(self, cell: Cell, name: str) -> float | None:
        """One of the twelve numbers, or AP at one IoU threshold (``"AP@0.50"``), in points."""
        assert cell.record is not None
        value = cell.record["by_iou"].get(name) if name in IOUS else cell.record["metrics"][name]
        return None if value is None else POINTS * value

    @cached_property
    def _replicates(self) -> dict[str, dict[str, np.ndarray]]:
        return {}

    def replicates(self, cell: Cell, name: str) -> np.ndarray:
        """The number in each resample of the images, ``[B]``, in points."""
        if cell.name not in self._replicates:
            self._replicates[cell.name] = load_replicates(cell.folder)
        stored = self._replicates[cell.name]
        return POINTS * (stored["by_iou"][IOUS.index(name)] if name in IOUS else stored[name])

    def compare(self, context: str, level: str, name: str) -> Comparison:
        """An arm against the baseline, without the correction."""
        ours, base = self.of(context, level), self.of(context, self.study.baseline)
        seeds = sorted(ours.keys() & base.keys())
        mine, theirs = (self.values(context, which, name) for which in (level, self.study.baseline))
        paired = [seed for seed in seeds if seed in mine and seed in theirs]
        found = None
        if paired:
            differences = np.array([mine[seed] - theirs[seed] for seed in paired])
            resampled = np.stack([self.replicates(ours[s], name) - self.replicates(base[s], name) for s in paired])
            record: dict[str, Any] = ours[paired[0]].record or {}
            found = statistics.difference(differences, resampled, record["images"])
        return Comparison(context, level, self.study.baseline, name, seeds, found)

    @cached_property
    def judged(self) -> list[Comparison]:
        """Every arm against its baseline in the numbers that the study judges, corrected for how many there are."""
        plain = [self.compare(*pair, name) for name in self.study.config.metrics for pair in self.pairs]
        p = statistics.holm(np.array([math.nan if c.found is None else c.found.p for c in plain]))
        return [Comparison(c.context, c.level, c.baseline, c.metric, c.seeds, c.found, float(value), len(plain))
                for c, value in zip(plain, p, strict=True)]  # fmt: skip

    @property
    def pairs(self) -> Sequence[tuple[str, str]]:
        """(context, level) of everything that has a baseline."""
        others = [level for level in self.levels if level != self.study.baseline]
        there = {(self.study.context(arm), arm[self.study.compare]) for arm in self.study.arms}
        return [(c, level) for c in self.study.contexts for level in others if (c, level) in there]

    @cached_property
    def described(self) -> list[Comparison]:
        """The differences in all twelve numbers, without verdicts."""
        return [self.compare(context, level, name) for context, level in self.pairs for name in METRICS]

    def warnings(self) -> list[str]:
        """What may make the runs differ besides the factors, and what is missing."""
        records = [cell.record for cell in self.study.finished() if cell.record]
        found = []
        for what, of in (
            ("revisions of the source", lambda r: r["git"]),
            ("versions of PyTorch", lambda r: r["versions"]["torch"]),
            ("versions of Python", lambda r: r["versions"]["python"]),
            ("devices", lambda r: r["device"]),
        ):
            seen = sorted({of(record) for record in records})
            if len(seen) > 1:
                found.append(f"The runs were made with {len(seen)} {what}: {', '.join(s or 'unknown' for s in seen)}.")
        if strangers := self.study.strangers():
            found.append(f"{len(strangers)} finished runs in this folder belong to another configuration of the study "
                         "and are not counted.")  # fmt: skip
        return found

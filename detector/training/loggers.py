"""The loggers of a run; a resumed run goes on with their files."""

from __future__ import annotations

import csv
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from detector.config.schema import LoggerConfig
from detector.config.targets import build, fitting
from detector.files import replacing

RUN_ID = "run_id.txt"


def build_loggers(wanted: LoggerConfig, folder: Path, step: int) -> list[Logger]:
    """The loggers that are switched on, for a run that begins at ``step``.

    Args:
        wanted: which.
        folder: of the run, for their files.
        step: optimiser steps done, of a resumed run.

    Raises:
        ConfigError: one of ``wanted.extra`` cannot be made.
    """
    loggers: list[Logger] = []
    if wanted.csv:
        loggers.append(MetricsCsv(folder / "metrics.csv", step))
    if wanted.tensorboard:
        purge = step + 1 if step else None
        board = TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False, purge_step=purge)
        loggers.append(board)
    for name, node in wanted.extra.items():
        loggers += [own_logger(node, f"logger.extra.{name}", folder)] if node is not None else []
    return loggers


def own_logger(node: Mapping[str, Any], key: str, folder: Path) -> Logger:
    """A logger that ``logger.extra`` names.

    If its class takes ``save_dir``, that is the folder of the run, unless the node says otherwise; ``id`` is the same
    as long as the run goes on in this folder, by which W&B goes on with its run.

    Args:
        node: with ``_target_``.
        key: of the node.
        folder: of the run.

    Raises:
        ConfigError: it cannot be made, or is no logger.
    """
    offers = fitting(node, key, save_dir=str(folder), id="")
    if "id" in offers:
        offers["id"] = run_id(folder)
    return build(node, key, returns=Logger, **offers)


@rank_zero_only
def run_id(folder: Path) -> str:
    """Eight random characters, kept in the folder of the run; None on ranks other than 0."""
    file = folder / RUN_ID
    if not file.is_file():
        with replacing(file) as temporary:
            temporary.write_text(secrets.token_hex(4), encoding="utf-8")
    return file.read_text(encoding="utf-8").strip()


class MetricsCsv(Logger):
    """One row for each logged step: ``step``, then the metrics by name; an empty cell is a metric not logged then.

    Lightning's ``CSVLogger`` deletes an existing file when it starts (``test_csv_logger_deletes_what_is_there``). A
    resumed run drops only the rows here that it will write again: those after the step that it resumes from, and the
    evaluation at that step.

    Args:
        path: the file.
        resume_step: the optimiser step that the run resumes from; 0 for a new run.
    """

    name, version = "csv", ""  # labels for Lightning

    def __init__(self, path: Path, resume_step: int = 0):
        super().__init__()
        self.path = path
        self.columns: list[str] = []
        self._open(resume_step)

    @rank_zero_only
    def _open(self, resume_step: int) -> None:
        if self.path.is_file():
            rows = [row for row in self._rows() if not self._repeats(row, resume_step)]
            self._rewrite(rows, list(rows[0]) if rows else [])

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: ``config.yaml`` is beside the file."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row. A metric that is new becomes a column, empty in the rows before."""
        row = {"step": step, **metrics}
        new = [name for name in row if name not in self.columns]
        if new:
            self._rewrite([*self._rows(), row], self.columns + new)
            return
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    @staticmethod
    def _repeats(row: Mapping[str, str | None], resume_step: int) -> bool:
        if None in row.values():  # the line that a killed run was writing
            return True
        step = int(row["step"] or 0)
        return step > resume_step or (step == resume_step and any(row[c] for c in row if c.startswith("val/")))

    def _rows(self) -> list[dict[str, str]]:
        if not self.path.is_file():
            return []
        with open(self.path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def _rewrite(self, rows: Sequence[Mapping[str, Any]], columns: list[str]) -> None:
        self.columns = columns
        with replacing(self.path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

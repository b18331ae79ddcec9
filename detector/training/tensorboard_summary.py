"""What TensorBoard shows of a finished run besides its curves: settings, numbers, the sheet, precision and recall."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from detector.config.checks import flat
from detector.config.schema import Config, to_dict
from detector.evaluation.matches import FALSE, TRUE, Matches
from detector.evaluation.scoring import CocoResult

THRESHOLDS = 127  # points of a precision-recall curve, TensorBoard's own number


def write_summary(folder: Path, config: Config, result: CocoResult, matches: Matches, sheet: Path, step: int) -> None:
    """Add to the event files in ``folder``: ``hparams``, the picture ``sheet`` if it exists, a curve for each class.

    Args:
        folder: of TensorBoard.
        config: of the run.
        result: the numbers of the best weights.
        matches: of their detections.
        sheet: the picture of predictions.
        step: of the best weights.
    """
    with SummaryWriter(str(folder)) as writer:
        metrics = {f"best/{name}": value for name, value in result.metrics.items() if value is not None}
        writer.add_hparams(settings(config), metrics, run_name=".")
        if sheet.is_file():
            with Image.open(sheet) as picture:
                writer.add_image("predictions", np.asarray(picture.convert("RGB")), step, dataformats="HWC")
        for k, name in enumerate(matches.class_names):
            writer.add_pr_curve_raw(f"IoU 0.5/{name}", *precision_recall_counts(matches, k), step, THRESHOLDS)


def precision_recall_counts(matches: Matches, k: int) -> tuple[np.ndarray, ...]:
    """The precision-recall curve of class ``k`` at an IoU of 0.5, in the form of TensorBoard.

    Returns:
        True positives, false positives, true negatives (zeros, as background is not counted), false negatives,
        precision and recall, each at :data:`THRESHOLDS` scores from 0 to 1.
    """
    rows = matches.detections_of[k]
    score, outcome = matches.score[rows], matches.outcome[0, 0, rows]
    above = score[None] >= np.linspace(0, 1, THRESHOLDS)[:, None]
    true, false = ((above & (outcome == kind)).sum(1) for kind in (TRUE, FALSE))
    objects = int(matches.counted[0, matches.objects_of[k]].sum())
    precision = true / np.maximum(true + false, 1)
    recall = true / max(objects, 1)
    return true, false, np.zeros_like(true), objects - true, precision, recall


def settings(config: Config) -> dict[str, bool | int | float | str]:
    """The configuration by dotted key, in values that TensorBoard takes: lists as text."""
    return {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in flat(to_dict(config)).items()}

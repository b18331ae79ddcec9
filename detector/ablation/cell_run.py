"""The process of one run of a study: ``python -m detector.ablation.cell_run FOLDER PARENT``.

FOLDER has the cell; PARENT is the process id of the job that starts this process. A crash, a lack of memory or the
state of a library ends with the process of its run, and the peak memory of the process is that of one run.
"""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from detector.ablation.cell_process import end_with
from detector.ablation.cell_record import write_record
from detector.ablation.cells import CELL
from detector.ablation.costs import measure
from detector.config.command_line import INTERRUPTED, USER_ERROR, fail
from detector.config.defaults import parse_partial
from detector.config.output import command_output
from detector.config.schema import Config
from detector.exceptions import DetectorError
from detector.files import read_json, replacing
from detector.models.checkpoint import read_checkpoint
from detector.training.result import TrainResult
from detector.training.train import train
from detector.training.trainer import settings

WEIGHTS = "weights.ckpt"


def run_cell(
    folder: Path,
    train: Callable[[Config], TrainResult] = train,
    measure: Callable[[Path], dict[str, float | None]] = measure,
) -> None:
    """Train the cell in ``folder``, or go on with its training, and write its record.

    Args:
        folder: with ``cell.json``. A run in it that was stopped is resumed from its last checkpoint.
        train: trains and evaluates.
        measure: measures costs, given the best checkpoint.

    Raises:
        DetectorError: the run cannot be done.
    """
    cell: dict[str, Any] = read_json(folder / CELL, "a cell of a study")
    config = parse_partial(cell["config"])
    with settings(config):  # costs are measured, and noted in the record, with the threads of the training
        outcome = train(config)
        costs = measure(outcome.checkpoint)
        if cell["keep_weights"]:
            keep_weights(outcome.checkpoint, folder / WEIGHTS)
        write_record(folder, cell, outcome, costs)
    shutil.rmtree(outcome.checkpoint.parent)  # checkpoints hold the optimiser's state: three times the weights


def keep_weights(best: Path, out: Path) -> None:
    """Copy what :func:`detector.load`, and Lightning, need from a checkpoint; the optimiser's state is most of it."""
    content = read_checkpoint(best).content
    kept = {key: content[key] for key in ("state_dict", "hyper_parameters", "pytorch-lightning_version")}
    buffer = io.BytesIO()  # on a full disk torch.save to a file raises no OSError
    torch.save(kept, buffer)
    with replacing(out) as temporary:
        temporary.write_bytes(buffer.getbuffer())


@command_output()
def main() -> None:
    """Run the cell of the command line; exit code 2 and one message for an error that a user can mend."""
    end_with(int(sys.argv[2]))
    try:
        run_cell(Path(sys.argv[1]))
    except DetectorError as error:
        fail(f"error: {error}", USER_ERROR)
    except KeyboardInterrupt:
        fail("interrupted", INTERRUPTED)


if __name__ == "__main__":
    main()

"""Where results go when no folder is given, one rule for all scripts, and which older ones they may or have to replace.

What a script makes of a run's checkpoint goes into the folder of the run, everything else into ``runs/`` of the working
directory, in both below the name of the script. A run itself is one of ``scripts/train.py``: ``runs/train/DATE_TIME``.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from detector.exceptions import ConfigError


def results_folder(output_dir: str, script: str, name: str = "", checkpoint: str = "") -> Path:
    """The folder for the results of a script.

    Args:
        output_dir: what the user has given; "": nothing.
        script: its name, without ``.py``.
        name: of what it looked at, where one run may have several; "": there is only one.
        checkpoint: a checkpoint or the folder of its run; "": the results are not those of one run.

    Returns:
        ``output_dir``, or else ``RUN/SCRIPT/NAME``, or else ``runs/SCRIPT/NAME``. A checkpoint that lies outside of a
        run's folder has its results beside it.
    """
    if output_dir:
        return Path(output_dir).expanduser()
    return (run_folder(checkpoint) if checkpoint else Path("runs")) / script / name


def checkpoint_file(checkpoint: str | Path) -> Path:
    """The file that ``checkpoint`` names: itself, or the best checkpoint of a run's folder."""
    path = Path(checkpoint).expanduser()
    return path / "checkpoints" / "best.ckpt" if path.is_dir() else path


def run_folder(checkpoint: str | Path) -> Path:
    """The folder of the run that a checkpoint belongs to: the one above ``checkpoints/``, else the one it lies in."""
    folder = checkpoint_file(checkpoint).parent
    return folder.parent if folder.name == "checkpoints" else folder


def check_overwrite(folder: Path, inputs: Any, overwrite: bool, record: str, names: Sequence[str]) -> None:
    """Raise :class:`ConfigError` if ``folder`` cannot be written or holds results of something else.

    The same may be repeated in place; ``overwrite`` allows everything.

    Args:
        folder: for the results.
        inputs: what they are made from.
        overwrite: whether results of something else may be replaced.
        record: the JSON file among the results that says under ``meta.inputs`` what they were made from.
        names: of all results.
    """
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise ConfigError(
            f"the results cannot be written to {folder}: {nearest} is not a folder that you may write "
            "to; choose another output_dir=FOLDER"
        )
    there = [name for name in names if (folder / name).exists()]
    known = recorded_inputs(folder / record)
    if there and not overwrite and known != inputs:
        stopped = "" if known else ", or of a command that was stopped"
        raise ConfigError(
            f"{folder} holds {', '.join(there)} of something else{stopped}; choose another "
            "output_dir=FOLDER, or replace them with overwrite=true"
        )


def recorded_inputs(record: Path) -> Any:
    """The files that results were made from; None if their record does not say."""
    try:
        return json.loads(record.read_text(encoding="utf-8"))["meta"]["inputs"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def discard(folder: Path, names: Iterable[str]) -> None:
    """Remove results of an earlier command that this one does not replace, and that would contradict its own.

    Args:
        folder: of the results.
        names: of files that the script writes, relative to ``folder``; they need not be there. A folder in it that is
            empty without them is removed too.
    """
    for path in (folder / name for name in names):
        path.unlink(missing_ok=True)
        if path.parent != folder:
            with suppress(OSError):  # not empty, or not there
                path.parent.rmdir()


def now() -> str:
    """Date and time, with the offset to UTC."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")

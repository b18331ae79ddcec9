"""Where results go when no folder is given, one rule for all scripts, and which older ones may not stay beside them.

What a script makes of a run's checkpoint goes into the folder of the run, everything else into ``runs/`` of the working
directory, in both below the name of the script. A run itself is one of ``scripts/train.py``: ``runs/train/DATE_TIME``.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from detector.checkpoint import checkpoint_file


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


def run_folder(checkpoint: str | Path) -> Path:
    """The folder of the run that a checkpoint belongs to: the one above ``checkpoints/``, else the one it lies in."""
    folder = checkpoint_file(checkpoint).parent
    return folder.parent if folder.name == "checkpoints" else folder


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

"""Running the cells of a study: each in a process of its own, started by a job of one of Hydra's launchers.

A launcher (``hydra/launcher=basic``, ``joblib`` or ``submitit_slurm``) decides where and how many jobs run at a time. A
job starts the process of its cell, writes down how it failed if it did, and never raises: the other jobs go on.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import detector
from detector.ablation.study import CELL, FAILURE, RECORD, read_json_or_none, write_json

LOG, LOCK = "log.txt", "lock"
TOLD = 12  # last lines of the log that a failure keeps
PATIENCE = 60.0  # seconds that an interrupted run has to write its checkpoint

Show = Callable[[str], None]


def execute(folder: Path, show: Show = lambda line: None) -> bool:
    """Do the run of a cell in a process of its own, unless it is done.

    Of several that are asked for the same cell, at the same time and on one file system, one does it; the others wait.

    Args:
        folder: of the cell, with ``cell.json``.
        show: gets each line that the run prints; all of them are in ``log.txt``.

    Returns:
        Whether the cell is finished.

    Raises:
        KeyboardInterrupt: Ctrl-C; the run has stopped with a checkpoint, from which the next start goes on.
    """
    with locked(folder):
        if is_finished(folder):
            return True
        begun = time.time()
        code, last = run_process(folder, show)
        if code == 0 and is_finished(folder):
            (folder / FAILURE).unlink(missing_ok=True)
            return True
        attempts = int((read_json_or_none(folder / FAILURE) or {}).get("attempts", 0)) + 1
        write_json(folder / FAILURE, {"attempts": attempts, "exit": meaning(code), "seconds": time.time() - begun,
                                      "log": last})  # fmt: skip
        return False


def is_finished(folder: Path) -> bool:
    """Whether the record of a cell is there and belongs to its present ``cell.json``."""
    cell, record = (read_json_or_none(folder / name) for name in (CELL, RECORD))
    return cell is not None and record is not None and cell["hash"] == record.get("hash")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a cell; the system gives it back if the process is killed. Waits for whoever has it."""
    with open(folder / LOCK, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run_process(folder: Path, show: Show) -> tuple[int, list[str]]:
    """Run the process of a cell; return its exit status (negative: the signal that ended it) and its last lines."""
    source = str(Path(detector.__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH", "")]))
    # A run with several devices starts its processes itself, also in a SLURM job: that has one task.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    environment = {**inherited, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "COLUMNS": "160"}
    command = [sys.executable, "-m", "detector.ablation.cell", str(folder), str(os.getpid())]
    last: list[str] = []
    with open(folder / LOG, "a", encoding="utf-8") as log:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            start_new_session=True,
        )  # Ctrl-C is for this process, which passes it on
        assert process.stdout is not None
        try:
            for line in process.stdout:
                log.write(line)
                log.flush()
                last = [*last, line.rstrip()][-TOLD:]
                show(line.rstrip())
            return process.wait(), last
        except BaseException:
            end(process)
            raise


def end(process: subprocess.Popen[Any]) -> None:
    """Ask a run to stop with a checkpoint, as Ctrl-C does, and make it after a while."""
    for number, patience in ((signal.SIGINT, PATIENCE), (signal.SIGKILL, None)):
        if process.poll() is None:
            process.send_signal(number)
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                continue


def end_with(parent: int) -> None:
    """Let Linux kill this process when its parent dies: a study that was killed leaves no run behind unseen.

    Args:
        parent: process id of the parent. If it is dead already, this process ends at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


def meaning(code: int) -> str:
    """An exit status in words."""
    if code >= 0:
        return f"exit status {code}" if code else "ended without a record"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")

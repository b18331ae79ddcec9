"""Starting the process of a cell, from a job of one of Hydra's launchers, and noting how it ended.

The launcher (``hydra/launcher=basic``, ``joblib`` or ``submitit_slurm``) decides where and how many jobs run at a time.
A job starts the process of its cell, writes down how it failed if it did, and never raises: the other jobs go on.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detector.ablation.cells import CELL, FAILURE, RECORD
from detector.config.commands import PACKAGE
from detector.files import read_json_or_empty, write_json

LOG, LOCK = "log.txt", "lock"
LAST_LINES = 12  # of the log, kept in failure.json
SECONDS_TO_STOP = 60.0  # for an interrupted run to write its checkpoint

Show = Callable[[str], None]


def run_in_process(folder: Path, show: Show = lambda line: None) -> bool:
    """Do the run of a cell in a process of its own, unless the cell is finished.

    If several jobs are asked for one cell at the same time, on one file system, one runs it and the others wait.

    Args:
        folder: of the cell, with ``cell.json``.
        show: gets each line that the run prints; all of them are in ``log.txt``.

    Returns:
        Whether the cell is finished.

    Raises:
        KeyboardInterrupt: Ctrl-C; the run has stopped with a checkpoint, from which the next start goes on.
    """
    with cell_lock(folder):
        if is_finished(folder):
            return True
        begun = time.time()
        code, last = run_process(folder, show)
        if code == 0 and is_finished(folder):
            (folder / FAILURE).unlink(missing_ok=True)
            return True
        attempts = int(read_json_or_empty(folder / FAILURE).get("attempts", 0)) + 1
        write_json(folder / FAILURE, {"attempts": attempts, "exit": meaning(code), "seconds": time.time() - begun,
                                      "log": last})  # fmt: skip
        return False


def is_finished(folder: Path) -> bool:
    """Whether the record of a cell is there and belongs to its present ``cell.json``."""
    cell, record = (read_json_or_empty(folder / name) for name in (CELL, RECORD))
    return "hash" in cell and cell["hash"] == record.get("hash")


@contextmanager
def cell_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a cell, after waiting for whoever holds it; the system releases it if the process is killed."""
    with open(folder / LOCK, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run_process(folder: Path, show: Show) -> tuple[int, list[str]]:
    """Run the process of a cell; return its exit status (negative: the signal that ended it) and its last lines."""
    source = str(PACKAGE.parent)
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH", "")]))
    # A run with several devices starts its processes itself, also in a SLURM job, which has one task.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    environment = {**inherited, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "COLUMNS": "160"}
    command = [sys.executable, "-m", "detector.ablation.cell_run", str(folder), str(os.getpid())]
    last: deque[str] = deque(maxlen=LAST_LINES)
    with open(folder / LOG, "a", encoding="utf-8") as log:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            start_new_session=True,  # Ctrl-C in the terminal is for this process, which passes it on
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                log.write(line)
                log.flush()
                last.append(line.rstrip())
                show(line.rstrip())
            return process.wait(), list(last)
        except BaseException:
            stop(process)
            raise


def stop(process: subprocess.Popen[Any]) -> None:
    """Ask a run to stop with a checkpoint, as Ctrl-C does; kill it if it takes too long."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def end_with(parent: int) -> None:
    """Let Linux kill this process when its parent dies: no run goes on unseen after its study was killed.

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

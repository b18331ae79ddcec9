"""The processes of a run on one machine: started together, and ended together.

Lightning's launcher for DDP runs the whole script again for each device, and its messages are those of all processes.
PyTorch's ``elastic_launch`` kills processes that have not ended 30 seconds after a signal, and loses the type of their
errors. Here a signal ends the run after its step, however long that takes (``test_interrupted_and_resumed``), and the
error is that of the process that failed first (``test_message_of_the_process_that_fails``).
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.environments.lightning import find_free_network_port
from torch.multiprocessing import ProcessContext, start_processes
from torch.multiprocessing.spawn import ProcessException

from detector.config.schema import Config, TrainerConfig
from detector.exceptions import DetectorError, TrainingError
from detector.training.distributed import CHILD, ConnectionLost, started_by

GRACE = 10  # seconds that processes have to end when another one has failed
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def must_launch(wanted: TrainerConfig) -> bool:
    """Whether this process has to start the processes of the run, all on this machine."""
    return wanted.devices > 1 and wanted.num_nodes == 1 and not started_by()


def launch(function: Callable[[Config], Any], config: Config) -> Any:
    """Run ``function(config)`` in ``config.trainer.devices`` processes of this machine at once.

    Signals that ask this process to stop are passed on. If one of the processes fails the others are ended.

    Args:
        function: defined in a module, so that the processes can import it.
        config: of the run.

    Returns:
        What the function returns in rank 0.

    Raises:
        DetectorError, KeyboardInterrupt: what the first process that failed raised.
        TrainingError: a process was killed.
    """
    count = config.trainer.devices
    threads = max(1, torch.get_num_threads() // count)
    with tempfile.TemporaryDirectory(prefix="detector-") as name:
        folder = Path(name)
        arguments = (function, config, folder, find_free_network_port(), threads)
        context = start_processes(_process, arguments, count, join=False, start_method="spawn")
        assert context is not None
        try:
            with forwarding(context):
                while not context.join(timeout=0.2, grace_period=GRACE):
                    pass  # Python handles signals between two waits only
        except ProcessException as error:
            raise failure(folder, context, error.error_index) from None
        return pickle.loads((folder / "result").read_bytes())


def _process(
    rank: int, function: Callable[[Config], Any], config: Config, folder: Path, port: int, threads: int
) -> None:
    os.setpgrp()  # Ctrl-C reaches the process that waits, which passes it on
    signal.signal(signal.SIGINT, signal.default_int_handler)
    numbers = {CHILD: rank, "RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": config.trainer.devices}
    os.environ.update({name: str(number) for name, number in numbers.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(threads)
    try:
        result = function(config)
        if rank == 0:
            (folder / "result").write_bytes(pickle.dumps(result))
    except BaseException as error:
        known = isinstance(error, DetectorError | KeyboardInterrupt)
        content = (time.time_ns(), error if known else traceback.format_exc())
        (folder / f"{rank}.error").write_bytes(pickle.dumps(content))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # at once: what the other processes wait for will not come


def failure(folder: Path, context: ProcessContext, noticed: int) -> BaseException:
    """What to raise for processes that did not end well.

    Args:
        folder: where they have left their errors.
        context: the processes, all of which have ended.
        noticed: the one whose end was noticed first.
    """
    count = len(context.processes)
    paths = {rank: folder / f"{rank}.error" for rank in range(count)}
    errors = {rank: pickle.loads(path.read_bytes()) for rank, path in paths.items() if path.is_file()}
    causes = [(when, rank) for rank, (when, error) in errors.items() if not isinstance(error, ConnectionLost)]
    if causes:
        _, rank = min(causes)
        error = errors[rank][1]
        if isinstance(error, KeyboardInterrupt):
            return error
        if isinstance(error, DetectorError):
            return type(error)(f"process {rank} of {count}: {error}")
        return RuntimeError(f"process {rank} of {count} failed:\n{error}")
    rank = next((rank for rank in (noticed, *range(count)) if rank not in errors), noticed)
    code = context.processes[rank].exitcode or 0
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return TrainingError(
        f"process {rank} of {count} {how}. If the machine ran out of memory, use a smaller data.batch_size or fewer "
        "data.workers."
    )


@contextmanager
def forwarding(context: ProcessContext) -> Iterator[None]:
    """Signals that this process gets inside the block go to the processes of ``context`` instead."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield
        return

    def forward(number: int, frame: Any) -> None:
        for process in context.processes:
            if process.is_alive() and process.pid:
                os.kill(process.pid, number)

    previous = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

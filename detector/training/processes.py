"""Several processes: started here, by torchrun or by SLURM, joined to one group, and ended together.

One process trains on one device. On one machine :func:`launch` starts the others. On several machines torchrun or
SLURM starts all of them, each with the whole command line; what they have to agree on, the folder of the run for
instance, is process 0's.
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
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed
from lightning_fabric.plugins.environments.lightning import find_free_network_port
from pytorch_lightning.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.utilities import rank_zero_only
from torch.multiprocessing import ProcessContext, start_processes
from torch.multiprocessing.spawn import ProcessException

from detector.config.commands import script
from detector.config.schema import Config, TrainerConfig
from detector.exceptions import ConfigError, DetectorError, TrainingError
from detector.words import counted

CHILD = "DETECTOR_PROCESS"  # set in the processes that launch() starts
PATIENCE = timedelta(minutes=30)  # that processes wait for each other: process 0 scores an evaluation by itself
GRACE = 10  # seconds that processes have to end when another one has failed
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def commands() -> str:
    """How to start several processes."""
    return f"""
  one machine:    python {script("train")} trainer=ddp trainer.devices=8 ...
  several, the same on each of them:
    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint FIRST_MACHINE:29500 \\
      {script("train")} trainer=multinode trainer.num_nodes=2 trainer.devices=8 run_dir=SHARED_FOLDER ...
  SLURM, in a job with --nodes=2 --ntasks-per-node=8:
    srun --kill-on-bad-exit python {script("train")} trainer=slurm trainer.num_nodes=2 trainer.devices=8 ..."""


class ConnectionLost(TrainingError):
    """Another process of the run has ended, and has said why."""


@dataclass(frozen=True)
class Place:
    """This process among those of the run."""

    rank: int
    world: int  # number of processes
    local_rank: int  # among those of this machine
    environment: ClusterEnvironment  # Lightning's view of the same


def must_launch(wanted: TrainerConfig) -> bool:
    """Whether this process is to start the processes of the run, all on this machine."""
    return wanted.devices > 1 and wanted.num_nodes == 1 and not started_by()


def started_by() -> str:
    """Who started this process as one of several: ``launch``, ``torchrun``, ``srun``; "" for nobody."""
    if CHILD in os.environ:
        return "launch"
    if torch.distributed.is_torchelastic_launched():
        return "torchrun"
    # Set in the steps of a SLURM job only, not in its batch script.
    return "srun" if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1 else ""


def find_place(wanted: TrainerConfig) -> Place:
    """The place of this process.

    Raises:
        ConfigError: there are not as many processes as the configuration says.
    """
    starter, expected = started_by(), wanted.devices * wanted.num_nodes
    if not starter:
        if expected > 1:
            raise ConfigError(
                f"trainer.num_nodes={wanted.num_nodes}: the processes on several machines are started from outside:"
                f"{commands()}"
            )
        return Place(0, 1, 0, LightningEnvironment())
    environment: ClusterEnvironment
    environment = SLURMEnvironment(auto_requeue=False) if starter == "srun" else TorchElasticEnvironment()
    if environment.world_size() != expected:
        raise ConfigError(
            f"trainer.devices={wanted.devices} trainer.num_nodes={wanted.num_nodes}: that is "
            f"{counted(expected, 'process', 'processes')}, but {starter} started {environment.world_size()}:"
            f"{commands()}"
        )
    return Place(environment.global_rank(), environment.world_size(), environment.local_rank(), environment)


@contextmanager
def joined(place: Place, gpu: bool) -> Iterator[None]:
    """Inside the block the processes can talk to each other, and Lightning knows which one this is."""
    before = rank_zero_only.rank  # type: ignore[attr-defined]
    rank_zero_only.rank = place.rank  # type: ignore[attr-defined]
    try:
        if place.world == 1:
            yield
            return
        os.environ["MASTER_ADDR"] = place.environment.main_address
        os.environ["MASTER_PORT"] = str(place.environment.main_port)
        device = torch.device("cuda", place.local_rank) if gpu else None
        if device:
            torch.cuda.set_device(device)
        torch.distributed.init_process_group(
            "nccl" if gpu else "gloo", timeout=PATIENCE, rank=place.rank, world_size=place.world, device_id=device
        )
        yield
        # Not after an error: it might wait for processes that are gone.
        torch.distributed.destroy_process_group()
    finally:
        rank_zero_only.rank = before  # type: ignore[attr-defined]


def agree(value: Any, place: Place) -> Any:
    """Process 0's ``value``, on every process."""
    if place.world == 1:
        return value
    values = [value]
    torch.distributed.broadcast_object_list(values)
    return values[0]


def check_same(facts: dict[str, Any], place: Place) -> None:
    """Raise :class:`ConfigError` on every process if ``facts`` (what: value) are not the same on all of them."""
    if place.world == 1:
        return
    everywhere: list[Any] = [None] * place.world
    torch.distributed.all_gather_object(everywhere, facts)
    for what, own in everywhere[0].items():
        for rank, other in enumerate(everywhere):
            if other[what] != own:
                raise ConfigError(
                    f"the processes of this run differ in {what}: {own} on process 0, {other[what]} on process {rank}. "
                    "All machines need the same data, and run_dir in a folder that they share."
                )


def agreed(trainer: pl.Trainer, wish: bool, every: int) -> bool:
    """Whether any process wishes something, the same answer on all of them.

    They ask each other after ``every`` optimiser steps only; the answer is no in between.
    """
    if trainer.world_size == 1:
        return wish
    if trainer.global_step % every:
        return False
    return trainer.strategy.reduce_boolean_decision(wish, all=False)


# --------------------------------------------------------------------------------------------------- starting
def launch(function: Callable[[Config], Any], config: Config) -> Any:
    """Run ``function(config)`` in ``config.trainer.devices`` processes of this machine at once.

    Signals that ask this process to stop are passed on. If one of the processes fails the others are ended.

    Args:
        function: of a module, so that the processes find it.
        config: of the run.

    Returns:
        What the function returns in process 0.

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
                # Not without a timeout: signals are handled between two waits only.
                while not context.join(timeout=0.2, grace_period=GRACE):
                    pass
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
    errors = {}
    for rank in range(count):
        path = folder / f"{rank}.error"
        if path.is_file():
            errors[rank] = pickle.loads(path.read_bytes())
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
    if threading.current_thread() is not threading.main_thread():  # only the main thread may
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

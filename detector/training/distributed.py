"""The processes of a run, one for each device: which one this is, and what they tell each other.

On one machine :func:`detector.training.launch.launch` starts the processes. On several machines torchrun or SLURM
starts them, each with the whole command line; what they have to agree on, the folder of the run for instance, is
decided by rank 0.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed
from pytorch_lightning.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.utilities import rank_zero_only

from detector.config.commands import command, script
from detector.config.schema import TrainerConfig
from detector.exceptions import ConfigError, DetectorError, TrainingError
from detector.words import counted

CHILD = "DETECTOR_PROCESS"  # set in the processes that launch() starts
COLLECTIVE_TIMEOUT = timedelta(minutes=30)  # long, as the others wait while rank 0 scores an evaluation
NO_TIMEOUT = timedelta(days=365)


def commands() -> str:
    """How to start several processes."""
    return f"""
  one machine:    {command("train")} trainer=ddp trainer.devices=8 ...
  several, the same on each of them:
    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint FIRST_MACHINE:29500 \\
      {script("train")} trainer=multinode trainer.num_nodes=2 trainer.devices=8 run_dir=SHARED_FOLDER ...
  SLURM, in a job with --nodes=2 --ntasks-per-node=8:
    srun --kill-on-bad-exit {command("train")} trainer=slurm trainer.num_nodes=2 trainer.devices=8 ..."""


class ConnectionLost(TrainingError):
    """Another process of the run has ended; its own message says why."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run as this process sees them."""

    rank: int  # of this process
    world_size: int
    local_rank: int  # of this process among those of this machine
    environment: ClusterEnvironment  # Lightning's view of the same

    @contextmanager
    def connected(self, gpu: bool) -> Iterator[None]:
        """Inside the block the processes can talk to each other, and Lightning knows the rank of this one."""
        before = rank_zero_only.rank  # type: ignore[attr-defined]
        rank_zero_only.rank = self.rank  # type: ignore[attr-defined]
        try:
            if self.world_size == 1:
                yield
                return
            os.environ["MASTER_ADDR"] = self.environment.main_address
            os.environ["MASTER_PORT"] = str(self.environment.main_port)
            device = torch.device("cuda", self.local_rank) if gpu else None
            if device:
                torch.cuda.set_device(device)
            torch.distributed.init_process_group(
                "nccl" if gpu else "gloo", timeout=COLLECTIVE_TIMEOUT,
                rank=self.rank, world_size=self.world_size, device_id=device,
            )  # fmt: skip
            yield
            # Not after an error: it might wait for processes that are gone.
            torch.distributed.destroy_process_group()
        finally:
            rank_zero_only.rank = before  # type: ignore[attr-defined]

    def from_rank_0(self, value: Any) -> Any:
        """The ``value`` of rank 0, on every process."""
        values = [value]
        if self.world_size > 1:
            torch.distributed.broadcast_object_list(values)
        return values[0]

    def by_rank_0(self, call: Callable[[], Any]) -> Any:
        """What ``call`` returns in rank 0, on every process; the others wait for as long as it takes.

        Raises:
            DetectorError: that of rank 0, on every process.
        """
        if self.world_size == 1:
            return call()
        # Connections of their own: those of the run give up after COLLECTIVE_TIMEOUT.
        waiting = torch.distributed.new_group(backend="gloo", timeout=NO_TIMEOUT)
        assert isinstance(waiting, torch.distributed.ProcessGroup)  # every process is in it
        found: list[Any] = [None, None]
        if self.rank == 0:
            try:
                found[0] = call()
            except DetectorError as error:
                found[1] = error
        torch.distributed.broadcast_object_list(found, group=waiting)
        torch.distributed.destroy_process_group(waiting)
        if found[1] is not None:
            raise found[1]
        return found[0]

    def check_same(self, facts: dict[str, Any]) -> None:
        """Raise :class:`ConfigError` on every process if ``facts`` (what: value) are not the same on all of them."""
        if self.world_size == 1:
            return
        everywhere: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(everywhere, facts)
        for what, own in everywhere[0].items():
            for rank, other in enumerate(everywhere):
                if other[what] != own:
                    raise ConfigError(
                        f"the processes of this run differ in {what}: {own} on process 0, {other[what]} on process "
                        f"{rank}. All machines need the same data, and run_dir in a folder that they share."
                    )


def started_by() -> str:
    """What started this process as one of several: ``launch``, ``torchrun``, ``srun``; "": it is the only one."""
    if CHILD in os.environ:
        return "launch"
    if torch.distributed.is_torchelastic_launched():
        return "torchrun"
    # Set in the steps of a SLURM job only, not in its batch script.
    return "srun" if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1 else ""


def process_group(wanted: TrainerConfig) -> ProcessGroup:
    """The processes that this one was started with.

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
        return ProcessGroup(0, 1, 0, LightningEnvironment())
    environment: ClusterEnvironment
    environment = SLURMEnvironment(auto_requeue=False) if starter == "srun" else TorchElasticEnvironment()
    if environment.world_size() != expected:
        raise ConfigError(
            f"trainer.devices={wanted.devices} trainer.num_nodes={wanted.num_nodes}: that is "
            f"{counted(expected, 'process', 'processes')}, but {starter} started {environment.world_size()}:"
            f"{commands()}"
        )
    return ProcessGroup(environment.global_rank(), expected, environment.local_rank(), environment)


def any_rank(trainer: pl.Trainer, flag: bool, every: int) -> bool:
    """Whether ``flag`` is true on any process; the same answer on all of them.

    The processes ask each other after every ``every`` optimiser steps; the answer is False in between.
    """
    if trainer.world_size == 1:
        return flag
    if trainer.global_step % every:
        return False
    return trainer.strategy.reduce_boolean_decision(flag, all=False)

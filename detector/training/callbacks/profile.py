"""Where the time of training goes: the phases of a step, and the operations of PyTorch that take most of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.profiler import ProfilerActivity

from detector.files import replacing

WARM = 3  # batches that are not measured: caches fill, kernels are chosen
PHASES = ("data", "forward", "backward", "optimiser, callbacks")
OPERATIONS = 25  # rows of the table of operations


class Profile(pl.Callback):
    """Measures ``steps`` batches after the third one, prints the phases and writes ``profile.txt`` and ``trace.json``.

    The phases are wall-clock time, on a GPU with a synchronisation after each. Lightning's ``PyTorchProfiler`` has no
    phases: its times of the calls of a step overlap (``test_profile`` adds the phases up to the whole). ``trace.json``
    opens in https://ui.perfetto.dev. It has to be the last of the callbacks: what those after it do at the end of a
    batch would count as waiting for data. Evaluations are in no phase.

    Args:
        folder: of the run.
        steps: batches to measure.
        say: prints a line.
    """

    def __init__(self, folder: Path, steps: int, say: Callable[[str], Any]):
        self.folder = folder
        self.steps = steps
        self.say = say
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.done = 0  # batches measured
        self._seen = 0
        self._mark = 0.0
        self._profiler: Any = None  # while batches are measured

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """The batch is loaded."""
        self._end_of("data", trainer)

    def on_before_backward(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """The losses are computed."""
        self._end_of("forward", trainer)

    def on_after_backward(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """The gradients are computed."""
        self._end_of("backward", trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """The step is done."""
        self._seen += 1
        if self._profiler is not None:
            self._end_of("optimiser, callbacks", trainer)
            self.done += 1
            if self.done == self.steps:
                self._finish(trainer)
        elif self._seen == WARM and trainer.is_global_zero:
            on_gpu = trainer.strategy.root_device.type == "cuda"
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
            self._profiler = torch.profiler.profile(activities=activities)
            self._profiler.start()
            self._mark = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Leave the time of the evaluation out."""
        self._mark = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Write what there is if the run was shorter than wanted."""
        if self._profiler is not None:
            self._finish(trainer)
        elif not self.done and trainer.is_global_zero:
            self.say(f"nothing was profiled: the first {WARM} batches are not measured, and the run had {self._seen}")

    def _end_of(self, phase: str, trainer: pl.Trainer) -> None:
        if self._profiler is None:
            return
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[phase] += now - self._mark
        self._mark = now

    def _finish(self, trainer: pl.Trainer) -> None:
        profiler, self._profiler = self._profiler, None
        profiler.stop()
        device = trainer.strategy.root_device.type
        table = profiler.key_averages().table(sort_by=f"self_{device}_time_total", row_limit=OPERATIONS)
        with replacing(self.folder / "profile.txt") as temporary:
            temporary.write_text(f"{self.phases()}\n\n{table}\n", encoding="utf-8")
        with replacing(self.folder / "trace.json") as temporary:
            profiler.export_chrome_trace(str(temporary))
        self.say(f"{self.phases()}\noperations in {self.folder / 'profile.txt'}")

    def phases(self) -> str:
        """The table of phases: milliseconds per batch and share."""
        total = sum(self.seconds.values()) or 1.0
        lines = [f"{'phase':<21}  {'ms per batch':>12}  {'share':>6}"]
        lines += [
            f"{name:<21}  {seconds / max(self.done, 1) * 1e3:>12.1f}  {seconds / total:>6.1%}"
            for name, seconds in self.seconds.items()
        ]
        return "\n".join(lines)

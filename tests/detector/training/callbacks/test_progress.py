"""What is shown of a training: a bar on a terminal, lines anywhere else."""

import io
import math
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from detector.training.callbacks.monitor import Monitor
from detector.training.callbacks.progress import ProgressDisplay


def shown(terminal, steps=40, first=0, rank=0):
    """What a training with an evaluation after its last step prints."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=160, soft_wrap=not terminal)
    monitor = Monitor()
    monitor.metrics, monitor.images_per_s, monitor.waiting = {"loss": 1.5, "loss_objectness": 0.25}, 12.34, 0.2
    logged = {"train/loss": 1.0, "val/AP50": 0.5, "val/AP": 0.1234, "val/AP75": math.nan, "val/loss": 2.0}
    trainer = SimpleNamespace(is_global_zero=rank == 0, global_step=first, estimated_stepping_batches=steps,
                              num_val_batches=[3], sanity_checking=False, callback_metrics=logged,
                              callbacks=[monitor])  # fmt: skip
    module = None
    display = ProgressDisplay(console)
    display.setup(trainer, module, "fit")
    display.on_train_start(trainer, module)
    for step in range(first + 1, steps + 1):
        trainer.global_step = monitor.row = step
        display.on_train_batch_end(trainer, module, {}, None, 0)
    display.on_validation_start(trainer, module)
    for _ in range(3):
        display.on_validation_batch_end(trainer)
    display.on_validation_end(trainer, module)
    display.on_train_end(trainer, module)
    return stream.getvalue()


def test_without_a_terminal_lines_are_printed():
    lines = shown(terminal=False).splitlines()
    assert len(lines) == 22  # twenty, the first step's, the evaluation's
    pattern = r"step 1/40  loss 1\.500  obj 0\.250  12\.3 images/s, 20% waiting for data  \S+ left"
    assert re.fullmatch(pattern, lines[0])
    assert lines[-1] == "step 40: AP 0.123  AP50 0.500  AP75 n/a  loss 2.000"


@pytest.mark.parametrize(("terminal", "rank"), [(False, 1), (True, 1)])
def test_other_ranks_are_silent(terminal, rank):
    assert shown(terminal, rank=rank) == ""


def test_bar_counts_the_steps_of_the_run():
    """A resumed run goes on counting."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown(terminal=True, first=30))
    assert re.search(r"train .* 40/40 loss 1\.500  obj 0\.250", text)
    assert "step 40: AP 0.123" in text

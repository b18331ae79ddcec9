"""What is shown of a training: a bar on a terminal, lines anywhere else."""

import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from detector.training.callbacks.progress import ProgressDisplay


def shown(terminal, steps=40, first=0, rank=0):
    """What a training with an evaluation after its last step prints."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=160, soft_wrap=not terminal)
    monitor = SimpleNamespace(metrics={"loss": 1.5, "loss_objectness": 0.25}, images_per_s=12.34, waiting=0.2,
                              gpu_memory=0.0, row=0)  # fmt: skip
    trainer = SimpleNamespace(is_global_zero=rank == 0, global_step=first, max_steps=steps, num_val_batches=[3])
    module = SimpleNamespace(result=SimpleNamespace(metrics={"AP": 0.1234, "AP50": 0.5, "AP75": None}))
    display = ProgressDisplay(console, monitor)
    display.setup(trainer, module, "fit")
    display.on_train_start(trainer, module)
    for step in range(first + 1, steps + 1):
        trainer.global_step = monitor.row = step
        display.on_train_batch_end(trainer)
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
    assert lines[-1] == "step 40: AP 0.123  AP50 0.500  AP75 n/a"


@pytest.mark.parametrize(("terminal", "rank"), [(False, 1), (True, 1)])
def test_other_ranks_are_silent(terminal, rank):
    assert shown(terminal, rank=rank) == ""


def test_bar_counts_the_steps_of_the_run():
    """A resumed run goes on counting."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown(terminal=True, first=30))
    assert re.search(r"train .* 40/40 loss 1\.500  obj 0\.250", text)
    assert "step 40: AP 0.123" in text

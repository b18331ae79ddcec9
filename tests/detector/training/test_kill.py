"""A run that is killed again and again ends as one that was never disturbed."""

import os
import random
import signal
import subprocess
import time

import pytest
import torch
from comparing import assert_same, rows
from forked import Forked

STEPS, KILLS = 36, 5
# Evaluations at 15 and 30, checkpoints at every fourth step: kills fall between, into, before and after them.
ARGUMENTS = (
    f"trainer.max_steps={STEPS}",
    "trainer.eval_every=15",
    "trainer.checkpoint_every=4",
    "optim.ema=0.9",
    "optim.accumulate=2",
    "augment=strong",
    "data.repeat_threshold=0.5",
)


def kill_at(command, folder, step, delay):
    """Run ``command`` in the parent of ``folder`` and kill it ``delay`` seconds after ``step`` was logged."""
    process = Forked(command, cwd=folder.parent)
    csv = folder / "metrics.csv"
    # A run that goes on first drops the rows after its checkpoint.
    begun = csv.stat().st_ino if csv.is_file() else 0
    deadline = time.monotonic() + 300
    while process.poll() is None and not (csv.is_file() and csv.stat().st_ino != begun and newest(folder) >= step):
        if time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError(f"step {step} was not reached in time:\n{process.communicate()}")
        time.sleep(0.01)
    time.sleep(delay)
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    output = process.communicate()
    assert alive, f"ended by itself before step {step}:\n{output}"


def newest(folder):
    """The step of the last whole row."""
    lines = (folder / "metrics.csv").read_text().splitlines(keepends=True)
    whole = [line for line in lines[1:] if line.endswith("\n")]
    return int(whole[-1].split(",")[0]) if whole else 0


@pytest.mark.slow
def test_five_kills(script, tmp_path):
    """Weights, optimiser, average, loop state, logged metrics, predictions; with and without loader processes."""
    seed = random.SystemRandom().randrange(10**6)
    draw = random.Random(seed)
    undisturbed = Forked(script("run_dir=whole", *ARGUMENTS), cwd=tmp_path)
    folder = tmp_path / "killed"
    steps = sorted(draw.sample(range(1, STEPS), KILLS))
    for number, step in enumerate(steps):
        command = script("run_dir=killed", "resume=auto", *ARGUMENTS, f"data.workers={2 * (number % 2)}")
        kill_at(command, folder, step, draw.random() * 0.2)
    last = script("run_dir=killed", "resume=auto", *ARGUMENTS, "data.workers=2")
    done = subprocess.run(last, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert undisturbed.wait() == 0
    where = f"killed at {steps}, seed {seed}"
    for name in ("last.ckpt", "best.ckpt"):
        a, b = (torch.load(tmp_path / run / "checkpoints" / name, weights_only=True) for run in ("whole", "killed"))
        for content in (a, b):
            del content["hyper_parameters"]["config"]  # the folders differ
            loops = content["loops"]["fit_loop"]  # how many batches were ever evaluated may differ
            content["loops"] = {name: state for name, state in loops.items() if "val_loop" not in name}
        assert_same(a, b, f"{where}: {name}")
    assert rows(tmp_path / "whole") == rows(folder), where
    assert (tmp_path / "whole/predictions.json").read_bytes() == (folder / "predictions.json").read_bytes()
    assert not list(folder.rglob(".*")), "drafts are left"

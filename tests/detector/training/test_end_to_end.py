"""The scripts as a user runs them: train, be interrupted, resume, evaluate, several processes."""

import csv
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from forked import Forked
from forked import run as run_forked
from small import SMALL, arguments

from detector.evaluation.metrics import METRIC_NAMES

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.slow

VALUES = SMALL | {
    "data.shapes.train_images": 12,
    "data.shapes.val_images": 5,
    "trainer.eval_every": 4,
    "trainer.log_every": 1,
    "logger.sheet_images": 2,
    "logger.tensorboard": True,
    "optim.warmup_steps": 0,
}


def command(folder, *more):
    return [sys.executable, "scripts/train.py", *arguments(VALUES), f"data.root={folder / 'data'}", *more]


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def run(*parts, code=0):
    done = run_forked([*parts], cwd=ROOT, env=environment())
    assert done.returncode == code, done.stdout + done.stderr
    return done


def weights(folder, name="last.ckpt"):
    return torch.load(folder / "checkpoints" / name, weights_only=True)["state_dict"]


def test_train_evaluate_and_refuse(tmp_path):
    folder = tmp_path / "run"
    done = run(*command(tmp_path, "trainer.max_steps=6", f"run_dir={folder}"))
    assert "step 6/6" in done.stdout
    assert "AP50" in done.stdout
    assert "triangle" in done.stdout
    assert f"results in {folder}" in done.stdout
    assert "since step" not in done.stdout
    assert "Traceback" not in done.stderr

    run(sys.executable, "scripts/evaluate.py", f"checkpoint={folder}/checkpoints/best.ckpt", f"output_dir={tmp_path}/e")
    trained, evaluated = (json.loads((p / "metrics.json").read_text()) for p in (folder, tmp_path / "e"))
    for name in METRIC_NAMES:
        assert evaluated[name] == pytest.approx(trained[name], abs=1e-6), name

    refused = run(*command(tmp_path, f"run_dir={folder}"), code=2)
    assert "there is a run in it already" in refused.stderr
    again = run(*command(tmp_path, "trainer.max_steps=6", f"run_dir={folder}", "resume=auto"))
    assert re.search(r"best weights after \d of 6 steps, \d+ s since step 6", again.stdout)


def test_stopped_and_resumed(tmp_path):
    """By signals to all processes of a command, the loader processes too: as `timeout` and batch systems send SIGTERM
    and a terminal sends Ctrl-C. SIGKILL: test_kill."""
    settings = ("trainer.max_steps=40", "trainer.checkpoint_every=3", "trainer.eval_every=10", "data.workers=2")
    run(*command(tmp_path, *settings, f"run_dir={tmp_path / 'whole'}"))
    folder = tmp_path / "run"
    last = folder / "checkpoints/last.ckpt"
    step = 0
    for number, advice in ((signal.SIGTERM, "send the signal again"), (signal.SIGINT, "press Ctrl-C again")):
        before = last.stat().st_mtime_ns if last.exists() else 0
        process = Forked(command(tmp_path, *settings, f"run_dir={folder}", "resume=auto"), cwd=ROOT, env=environment())
        deadline = time.monotonic() + 300
        while not last.is_file() or last.stat().st_mtime_ns == before:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, number)
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 130, errors
        assert advice in output
        assert f"run_dir={folder} resume=auto" in errors
        assert "Traceback" not in errors
        done = torch.load(last, weights_only=True)["global_step"]
        assert step < done < 40
        step = done

    run(*command(tmp_path, *settings, f"run_dir={folder}", "resume=auto"))
    for name in ("last.ckpt", "best.ckpt"):
        a, b = weights(tmp_path / "whole", name), weights(folder, name)
        assert all(torch.equal(a[key], b[key]) for key in a)
    steps = []
    for which in (tmp_path / "whole", folder):
        with open(which / "metrics.csv", newline="") as file:
            steps.append([(row["step"], row["train/loss"], row["val/AP"]) for row in csv.DictReader(file)])
    assert steps[0] == steps[1]


def test_two_processes(tmp_path):
    """Five validation images on two processes: each is counted once, and the numbers are those of one process."""
    folder = tmp_path / "run"
    two = ("trainer.devices=2", "model.norm=group", "model.fpn_norm=group")
    done = run(*command(tmp_path, *two, "trainer.max_steps=4", f"run_dir={folder}"))
    assert done.stdout.count("results in") == 1
    assert done.stdout.count("step 4/4") == 1
    assert {p.name for p in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert not [p for p in tmp_path.iterdir() if p.name not in ("run", "data")]

    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["counts"]["images"] == 5
    run(sys.executable, "scripts/evaluate.py", f"checkpoint={folder}/checkpoints/best.ckpt", f"output_dir={tmp_path}/e")
    alone = json.loads((tmp_path / "e/metrics.json").read_text())
    for name in METRIC_NAMES:
        assert metrics[name] == pytest.approx(alone[name], abs=1e-6), name


def test_sweep(tmp_path):
    """Every run of a sweep has its folder, and its own seed."""
    run(
        *command(tmp_path, "trainer.max_steps=1", f"run_dir='{tmp_path}/sweep/${{seed}}'"),
        "--multirun",
        "seed=0,1",
        f"hydra.sweep.dir={tmp_path}/hydra",
    )
    a, b = (weights(tmp_path / "sweep" / seed) for seed in "01")
    assert any(not torch.equal(a[key], b[key]) for key in a)

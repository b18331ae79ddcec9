"""A run that was interrupted and resumed equals one that was not."""

import csv
from pathlib import Path

import pytest
import torch

from detector.errors import ConfigError, WeightsError
from detector.training.callbacks import CtrlC
from detector.training.run import train


def stop_after(monkeypatch, step):
    """Let Ctrl-C be pressed while ``step`` runs; None: never."""

    def press(self, trainer, *args):
        if step is not None and trainer.global_step == step - 1:
            self.requested = True

    monkeypatch.setattr(CtrlC, "on_train_batch_start", press, raising=False)


def checkpoint_of(folder, name="last.ckpt"):
    return torch.load(Path(folder) / "checkpoints" / name, weights_only=True)


def assert_same(a, b, path=""):
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{path}/{i}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    else:
        assert a == b, path


def rows(folder):
    """The logged metrics without those that measure time."""
    with open(Path(folder) / "metrics.csv", newline="") as file:
        timed = ("train/images_per_s", "train/data_wait")
        return [{k: v for k, v in row.items() if k not in timed} for row in csv.DictReader(file)]


SCHEDULES = {"trainer__eval_every": 3, "optim__schedule": "cosine", "augment__scale_jitter": [0.7, 1.4]}


@pytest.mark.slow
@pytest.mark.parametrize("stops", [(1,), (2, 3), (3,), (5,), (6,), (1, 4, 5)])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_resumed_equals_uninterrupted(tiny, tmp_path, monkeypatch, stops, accumulate):
    """Tensors, optimiser, schedule, callbacks and logs agree, whether it stops before, after or at an evaluation."""
    settings = {"trainer__max_steps": 7, "optim__accumulate": accumulate, **SCHEDULES}
    whole = train(tiny(run_dir=str(tmp_path / "whole"), **settings))
    for stop in stops:
        stop_after(monkeypatch, stop)
        with pytest.raises(KeyboardInterrupt, match="resume=auto"):
            train(tiny(resume="auto", **settings))
        assert checkpoint_of(tmp_path / "run")["global_step"] == stop
    stop_after(monkeypatch, None)
    resumed = train(tiny(resume="auto", **settings))

    for name in ("last.ckpt", "best.ckpt"):
        a, b = checkpoint_of(tmp_path / "whole", name), checkpoint_of(tmp_path / "run", name)
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "global_step"):
            assert_same(a[key], b[key], f"{name}/{key}")
    assert rows(tmp_path / "whole") == rows(tmp_path / "run")
    assert resumed.result.metrics == whole.result.metrics
    assert resumed.best_step == whole.best_step

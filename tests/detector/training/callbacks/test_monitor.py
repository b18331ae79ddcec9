"""Speed and losses as they are logged."""

from types import SimpleNamespace

import pytest
import torch

from detector.training.callbacks import monitor as monitors
from detector.training.callbacks.monitor import Monitor, losses_of


def test_waiting_for_data_is_told_from_work(monkeypatch):
    """By a clock of our own: a second in each step, three between two steps, and an evaluation of a hundred."""
    now, rows = [0.0], []
    monkeypatch.setattr(monitors.time, "perf_counter", lambda: now[0])
    trainer = SimpleNamespace(
        global_step=0, max_steps=100, world_size=2, accumulate_grad_batches=1, log_every_n_steps=0,
        _logger_connector=SimpleNamespace(metrics={"log": {"mine": torch.tensor(7.0)}}),
        optimizers=[SimpleNamespace(param_groups=[{"lr": 0.1}, {"lr": 0.01}])],
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        loggers=[SimpleNamespace(log_metrics=lambda row, step: rows.append((step, row)))],
    )  # fmt: skip
    monitor, batch = Monitor(log_every=4), ([None] * 5, [{}] * 5)
    monitor.on_train_start(trainer, None)
    for step in range(1, 9):
        monitor.on_train_batch_start(trainer, None, batch, step - 1)
        now[0] += 1
        trainer.global_step = step
        losses = {"loss_a": torch.tensor(2.0), "loss_b": torch.tensor(1.0)}
        monitor.on_train_batch_end(trainer, None, {"loss": torch.tensor(3.0), **losses}, batch, step - 1)
        if step == 6:
            monitor.on_validation_start(trainer, None)
            now[0] += 100
        else:
            now[0] += 3
    assert [step for step, _ in rows] == [1, 4, 8]
    assert [row["train/loss"] for _, row in rows] == [3, 3, 3]
    assert rows[0][1]["train/lr"] == 0.1
    # Steps 2 to 4: three steps with a wait before each. Steps 5 to 8: four steps, but no wait before step 7.
    assert [row["train/data_wait"] for _, row in rows] == pytest.approx([0, 9 / 12, 9 / 13])
    assert [row["train/images_per_s"] for _, row in rows] == pytest.approx([10, 30 / 12, 40 / 13])
    assert monitor.waited == pytest.approx(18 / 26)


def test_losses_as_a_module_returns_them():
    """The sum of the parts, or else the loss, which Lightning has divided by the batches that are added up."""
    trainer = SimpleNamespace(accumulate_grad_batches=4)
    parts = {"loss": torch.tensor(0.75), "loss_a": torch.tensor(2.0), "loss_b": torch.tensor(1.0), "x": torch.ones(3)}
    assert losses_of(parts, trainer) == {"loss": 3.0, "loss_a": 2.0, "loss_b": 1.0}
    assert losses_of({"loss": torch.tensor(0.75)}, trainer) == {"loss": 3.0}

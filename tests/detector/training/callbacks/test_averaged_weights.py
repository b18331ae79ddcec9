"""Averaged weights: the rule by hand, and what is evaluated, kept and resumed."""

from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch

from detector.models.checkpoint import load_trained_model
from detector.training.callbacks.averaged_weights import AveragedWeights
from detector.training.train import train


class Number(pl.LightningModule):
    """A weight, a statistic and a counter."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.register_buffer("statistic", torch.zeros(1))
        self.register_buffer("counter", torch.tensor(0))


def averages_of(decay, numbers):
    module = Number()
    callback = AveragedWeights(decay)
    trainer = SimpleNamespace(global_step=0, strategy=SimpleNamespace(root_device=torch.device("cpu")))
    callback.setup(trainer, module, "fit")
    seen = []
    for number in numbers:
        trainer.global_step += 1
        for tensor in (module.weight.data, module.statistic, module.counter):
            tensor.fill_(number)
        callback.on_train_batch_end(trainer, module, None, None, 0)
        average = callback._average_model.module
        seen.append((average.weight.item(), average.statistic.item(), average.counter.item()))
    return seen


def test_rule_by_hand():
    """The first weights are taken as they are; then the rate is 1 - 2/11, and 1 - 0.2 where the decay limits it."""
    weights, statistics, counters = zip(*averages_of(0.2, [5, 16, 6]), strict=True)
    second = 5 + (1 - 2 / 11) * 11
    assert weights == pytest.approx([5, second, second + 0.8 * (6 - second)])
    assert statistics == pytest.approx(weights)
    assert counters == (5, 16, 6)


def test_average_is_evaluated_and_kept(tiny):
    """The detections of the run are those of the loaded checkpoint, whose weights are not the newest."""
    outcome = train(tiny(optim__ema=0.9, optim__lr=0.01, trainer__max_steps=4, model__norm="group"))
    content = torch.load(outcome.last_checkpoint, weights_only=True)
    average, newest = content["state_dict"], content["current_model_state"]
    key = "model.roi_heads.box_predictor.cls_score.weight"
    assert not torch.equal(average[key], newest[key])
    loaded = load_trained_model(outcome.checkpoint)
    assert torch.equal(loaded.state_dict()[key], average[key])

"""Learning rates by hand, and which parameter gets which weight decay."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from detector.config.defaults import default
from detector.config.schema import Config, ModelConfig, OptimConfig, RoiConfig
from detector.exceptions import ConfigError
from detector.models.backbone import anchor_strides
from detector.models.faster_rcnn import build_model
from detector.training.length import check_length
from detector.training.optimiser import (
    build_optimizer,
    build_scheduler,
    images_per_step,
    lr_factor,
    parameter_groups,
    scaled_lr,
)


def factors(total, steps, **keys):
    config = default(OptimConfig, **keys)
    return [lr_factor(step, config, total) for step in steps]


def test_linear_warm_up():
    """0.1 + 0.9 * step / 4."""
    assert factors(100, range(6), schedule="constant", warmup_steps=4, warmup_factor=0.1) == pytest.approx(
        [0.1, 0.325, 0.55, 0.775, 1.0, 1.0]
    )


def test_no_warm_up():
    assert factors(100, [0, 1, 99], schedule="constant", warmup_steps=0) == [1.0, 1.0, 1.0]


def test_step():
    """Of 30 steps a drop at 20 and one at 27: 2/3 is a little more than 0.666."""
    steps = [0, 19, 20, 26, 27, 29]
    got = factors(30, steps, schedule="step", warmup_steps=0, milestones=[0.666, 0.9], gamma=0.1)
    assert got == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_cosine():
    """From 1 at step 2 to 0.2 at step 10, 0.6 half way; a quarter of the way is 0.2 + 0.4 (1 + cos 45 degrees)."""
    got = factors(11, [0, 1, 2, 4, 6, 10, 11], schedule="cosine", warmup_steps=2, warmup_factor=0, final_factor=0.2)
    assert got == pytest.approx([0, 0.5, 1, 0.2 + 0.4 * (1 + math.sqrt(0.5)), 0.6, 0.2, 0.2])


def test_one_cycle_is_pytorchs():
    total, up = 50, 14
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    # PyTorch's rising phase ends at step pct_start * total - 1.
    theirs = OneCycleLR(
        optimizer, 1.0, total, pct_start=(up + 1) / total, div_factor=25, final_div_factor=4, cycle_momentum=False
    )
    expected = []
    for _ in range(total):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(expected) < total:
            theirs.step()
    got = factors(total, range(total), schedule="one_cycle", warmup_steps=up, warmup_factor=0.04, final_factor=0.01)
    assert got == pytest.approx(expected, abs=1e-12)


def test_training_shorter_than_its_warm_up():
    for schedule in ("step", "cosine", "one_cycle", "constant"):
        got = factors(5, range(6), schedule=schedule, warmup_steps=500)
        assert all(0 < a < b < 0.05 for a, b in itertools.pairwise(got))


def test_scheduler_sets_the_rates():
    config = default(
        OptimConfig, lr=2.0, schedule="step", warmup_steps=2, warmup_factor=0.5, milestones=[0.5], gamma=0.1
    )
    optimizer = build_optimizer(nn.Linear(2, 2), config)
    scheduler = build_scheduler(optimizer, config, lambda: 6)
    rates = []
    for _ in range(6):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    assert rates == [pytest.approx([r, r]) for r in (1.0, 1.5, 2.0, 0.2, 0.2, 0.2)]


def test_groups():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.Linear(4, 2, bias=False))
    model[3].weight.requires_grad_(False)
    weights, others = parameter_groups(model, default(OptimConfig, weight_decay=0.3, norm_weight_decay=0.1))
    assert [id(p) for p in weights["params"]] == [id(model[0].weight)]
    expected = [model[0].bias, model[1].weight, model[1].bias, model[2].weight, model[2].bias]
    assert [id(p) for p in others["params"]] == [id(p) for p in expected]
    assert (weights["weight_decay"], others["weight_decay"]) == (0.3, 0.1)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_fused_and_plain_agree(name):
    config = default(OptimConfig, name=name, lr=0.1, weight_decay=0.01)
    results = []
    for fused in (True, False):
        torch.manual_seed(0)
        model = nn.Linear(5, 3)
        optimizer = build_optimizer(model, config, fused)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(2, 5)).square().sum().backward()
            optimizer.step()
        results.append(model.weight.detach())
    torch.testing.assert_close(*results)


def test_sgd_step_by_hand():
    """v = g + 0.5 w = 3 + 0.5, w = 1 - 0.1 v; then v' = 0.9 v + g + 0.5 w."""
    config = default(OptimConfig, name="sgd", lr=0.1, momentum=0.9, weight_decay=0.5)
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    optimizer = build_optimizer(model, config)
    for expected in (1 - 0.1 * 3.5, 0.65 - 0.1 * (0.9 * 3.5 + 3 + 0.5 * 0.65)):
        model.weight.grad = torch.full((1, 1), 3.0)
        optimizer.step()
        assert model.weight.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("schedule", ["one_cycle", "step", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0, 3])
def test_the_length_is_asked_after_the_first_step_only(schedule, warmup):
    """A Trainer that is asked for it loads its data; the first rate is that of any length, infinity included."""
    config = default(OptimConfig, lr=2.0, schedule=schedule, warmup_steps=warmup)
    optimizer = build_optimizer(nn.Linear(2, 2), config)
    asked = []

    def length():
        asked.append(optimizer.param_groups[0]["lr"])
        return math.inf

    scheduler = build_scheduler(optimizer, config, length)
    assert asked == []
    first = optimizer.param_groups[0]["lr"]
    assert first == pytest.approx(2.0 * lr_factor(0, config, 50))
    for _ in range(9):
        optimizer.step()
        scheduler.step()
    assert asked
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2.0)


def detector_of(name, **keys):
    config = default(ModelConfig, name=name, fpn_channels=8, **keys)
    config.head.width = 8
    config.anchors.sizes = [[16.0]] * len(anchor_strides(config))
    return build_model(config, default(RoiConfig), 3)


@pytest.mark.parametrize(
    ("name", "keys", "stages"),
    [("fpn", {}, 5), ("fpn", {"fpn_strides": [8, 16]}, 4), ("fpn", {"fpn_strides": [4]}, 2), ("c4", {}, 4),
     ("c5", {}, 5)],
)  # fmt: skip
def test_rates_by_layer(name, keys, stages):
    """The last stage of the backbone learns with 0.1 * 0.5 of the rate, each one before it with half of that."""
    model = detector_of(name, **keys)
    config = default(OptimConfig, lr=0.1, backbone_lr=0.5, stage_decay=0.5)
    optimizer = build_optimizer(model, config)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(rate) == len(list(model.parameters()))
    features = list((model.backbone.body if name == "fpn" else model.backbone).children())
    assert rate[id(features[0][0].weight)] == pytest.approx(0.05 * 0.5 ** (stages - 1))
    assert [rate[id(p)] for p in features[-1].parameters()] == pytest.approx(
        [0.05] * len(list(features[-1].parameters()))
    )
    assert rate[id(model.rpn.head.cls_logits.weight)] == rate[id(model.roi_heads.box_head.fc6.weight)] == 0.1
    if name == "fpn":
        assert {rate[id(p)] for p in model.backbone.fpn.parameters()} == {0.1}


def test_backbone_is_frozen_for_a_while():
    model = detector_of("c4")
    config = default(OptimConfig, lr=0.1, schedule="constant", warmup_steps=0, backbone_frozen_steps=2, backbone_lr=0.5)
    optimizer = build_optimizer(model, config)
    scheduler = build_scheduler(optimizer, config, lambda: 10)
    backbone, head = model.backbone[0][0].weight, model.rpn.head.cls_logits.weight
    changes = []
    for _ in range(4):
        before = backbone.detach().clone(), head.detach().clone()
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        scheduler.step()
        changes.append((not torch.equal(before[0], backbone), not torch.equal(before[1], head)))
    assert changes == [(False, True), (False, True), (True, True), (True, True)]


def test_rate_follows_the_batch():
    """Sixteen images of SGD at 0.02 become eight at 0.01; of Adam, four times the images take twice the rate."""
    sgd, adam = (default(OptimConfig, name=name, lr=0.02, base_batch=16) for name in ("sgd", "adamw"))
    assert scaled_lr(sgd, 8) == pytest.approx(0.01)
    assert scaled_lr(adam, 64) == pytest.approx(0.04)
    assert scaled_lr(default(OptimConfig, lr=0.02), 64) == 0.02
    for target, lr in (
        ("torch.optim.SGD", 0.01),
        ("user_parts.Nesterov", 0.01),
        ("torch.optim.RAdam", 0.02 * 0.5**0.5),
    ):
        assert scaled_lr(replace(sgd, name={"_target_": target}), 8) == pytest.approx(lr)
        assert scaled_lr(replace(sgd, name={"_target_": target, "lr": 0.04}), 8) == pytest.approx(2 * lr)
    config = default(Config)
    config.data.batch_size, config.trainer.devices, config.trainer.num_nodes, config.optim.accumulate = 2, 4, 3, 5
    assert images_per_step(config) == 120


# ------------------------------------------------------------------------------------- classes of the user's
def test_an_optimizer_of_the_users_has_the_same_groups():
    """Rates by layer and decays as for ours; what the node says of them replaces the keys."""
    model = detector_of("c4")
    keys = {"lr": 0.1, "backbone_lr": 0.5, "stage_decay": 0.5, "weight_decay": 0.2, "norm_weight_decay": 0.3}
    ours = build_optimizer(model, default(OptimConfig, **keys))
    node = {"_target_": "torch.optim.RAdam", "betas": [0.5, 0.6]}
    given = build_optimizer(model, default(OptimConfig, name=node, **keys))
    assert type(given) is torch.optim.RAdam
    for a, b in zip(given.param_groups, ours.param_groups, strict=True):
        assert all(p is q for p, q in zip(a["params"], b["params"], strict=True))
        assert (a["lr"], a["weight_decay"]) == (b["lr"], b["weight_decay"])
        assert a["betas"] == [0.5, 0.6]
    own = build_optimizer(model, default(OptimConfig, name={**node, "lr": 0.4, "weight_decay": 0.7}, **keys))
    assert max(group["lr"] for group in own.param_groups) == 0.4
    assert {group["weight_decay"] for group in own.param_groups} == {0.7, 0.3}


def test_an_optimizer_gets_what_its_signature_names():
    model, config = nn.Linear(2, 2), default(OptimConfig, momentum=0.7)
    sgd = build_optimizer(model, replace(config, name={"_target_": "torch.optim.SGD"}))
    assert {group["momentum"] for group in sgd.param_groups} == {0.7}
    own = build_optimizer(model, replace(config, name={"_target_": "torch.optim.SGD", "momentum": 0.2}))
    assert {group["momentum"] for group in own.param_groups} == {0.2}
    assert "momentum" not in build_optimizer(model, replace(config, name={"_target_": "torch.optim.Rprop"})).defaults


@pytest.mark.parametrize(
    ("node", "facts"),
    [
        ({"_target_": "torch.optim.RAdam", "beta": 1}, ["no argument beta", "betas?"]),
        ({"_target_": "torch.optim.RAdam", "eps": -1}, ["ValueError", "-1"]),
        ({"_target_": "torch.nn.ReLU", "inplace": True}, ["torch.nn.ReLU"]),
        ({"_target_": "user_parts.Noted"}, ["torch.optim.optimizer.Optimizer"]),
    ],
)
def test_optimizers_that_are_none(node, facts):
    with pytest.raises(ConfigError) as caught:
        build_optimizer(nn.Linear(2, 2), default(OptimConfig, name=node))
    assert str(caught.value).startswith(f"optim.name: {node['_target_']}")
    assert [fact for fact in facts if fact not in str(caught.value)] == []


def schedule_of(node, total=8, **keys):
    optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": 2.0, "backbone": False}])
    return optimizer, build_scheduler(optimizer, default(OptimConfig, schedule=node, **keys), lambda: total)


def rates(optimizer, scheduler, steps):
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_schedules_of_the_users():
    """A function that takes the length; PyTorch's with and without it. Rates by hand."""
    assert rates(*schedule_of({"_target_": "user_parts.half_life", "floor": 0.3}), 4) == pytest.approx(
        [2 * max(0.5 ** (step / 2), 0.3) for step in range(4)]
    )
    step = {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 2, "gamma": 0.1}
    assert rates(*schedule_of(step), 4) == pytest.approx([2, 2, 0.2, 0.2])
    cosine = {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR"}
    assert rates(*schedule_of(cosine), 9)[::4] == pytest.approx([2, 1, 0])
    assert rates(*schedule_of({**cosine, "T_max": 4}), 5)[::2] == pytest.approx([2, 1, 0])


@pytest.mark.parametrize(
    ("node", "total", "keys", "facts"),
    [
        ({"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau"}, 8, {}, ["metric"]),
        ({"_target_": "user_parts.half_life"}, math.inf, {}, ["total_steps"]),
        ({"_target_": "user_parts.half_life"}, 8, {"backbone_frozen_steps": 2}, ["optim.backbone_frozen_steps=2"]),
        ({"_target_": "torch.optim.lr_scheduler.StepLR"}, 8, {}, ["step_size"]),
        ({"_target_": "user_parts.Noted"}, 8, {}, ["LRScheduler"]),
    ],
)
def test_schedules_that_are_none(node, total, keys, facts):
    with pytest.raises(ConfigError) as caught:
        schedule_of(node, total, **keys)
    assert [fact for fact in [f"optim.schedule: {node['_target_']}", *facts] if fact not in str(caught.value)] == []


def test_a_schedule_without_our_warm_up_may_be_shorter_than_it():
    config = default(Config)
    config.optim.warmup_steps, config.trainer.max_steps = 100, 50
    with pytest.raises(ConfigError, match=r"warmup_steps"):
        check_length(config)
    config.optim.schedule = {"_target_": "user_parts.half_life"}
    check_length(config)

"""Losses and gradients that are not finite: what stops, what is kept, and what is said."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from comparing import assert_same

from detector.exceptions import TrainingError
from detector.training.callbacks.guard import Guard
from detector.training.module import DetectionModule
from detector.training.train import train


def test_nonfinite_loss_names_loss_and_images(tiny, monkeypatch):
    original = DetectionModule.training_step

    def broken(self, batch, batch_idx):
        if self.trainer.global_step == 2:
            self.model.roi_heads.box_predictor.bbox_pred.weight.data.fill_(float("nan"))
        return original(self, batch, batch_idx)

    monkeypatch.setattr(DetectionModule, "training_step", broken)
    config = tiny()
    with pytest.raises(TrainingError) as error:
        train(config)
    message = str(error.value)
    assert "step 3: not finite: loss_box_reg=nan" in message
    assert "loss_objectness" not in message
    assert message.count("(image ") == 2  # a batch of two
    saved = torch.load(Path(config.run_dir) / "nonfinite_batch.pt", weights_only=True)
    assert len(saved["images"]) == len(saved["targets"]) == 2
    assert saved["losses"]["loss_box_reg"].isnan()


def test_nonfinite_batch_that_cannot_be_saved(tmp_path):
    """A full disk, say: the message is about the losses all the same. Here the folder's name is a file's."""
    (tmp_path / "run").write_text("")
    trainer = SimpleNamespace(default_root_dir=tmp_path / "run", global_step=4, world_size=1)
    batch = [torch.zeros(3, 8, 8)], [{"image_id": torch.tensor(7)}]
    with pytest.raises(TrainingError, match=r"step 5: not finite: a=inf\. (.|\n)*image 7\nThe batch could not be"):
        Guard().check({"a": torch.tensor(float("inf")), "b": torch.tensor(1.0)}, batch, trainer)


def test_float16_may_skip_steps_but_not_for_ever():
    """29 bad steps, a good one and 29 more are taken; the thirtieth in a row is not."""
    guard, weight = Guard(), torch.nn.Parameter(torch.ones(3))
    optimiser, trainer = torch.optim.SGD([weight], 0.1), SimpleNamespace(global_step=60)
    losses, batch = {"a": torch.tensor(1.0)}, [torch.zeros(3, 8, 8)]
    for gradient in [float("inf")] * 29 + [3.0] + [float("nan")] * 29:
        weight.grad = torch.full((3,), gradient)
        guard.clip_scaled(optimiser, 1.0)
        if gradient == 3.0:
            assert weight.grad.norm() == pytest.approx(1.0)
        guard.check(losses, (batch, [{}]), trainer)
    guard.clip_scaled(optimiser, 1.0)
    with pytest.raises(TrainingError, match=r"step 60: not finite: the gradients of 30 steps in a row.*bf16-mixed"):
        guard.check(losses, (batch, [{}]), trainer)


def test_each_process_saves_its_own_batch(tmp_path):
    """Bad gradients are those of all processes, and any of their batches may be the cause."""
    for rank in range(2):
        trainer = SimpleNamespace(default_root_dir=tmp_path, global_step=4, world_size=2, global_rank=rank)
        batch = [torch.full((3, 8, 8), rank)], [{"image_id": torch.tensor(7)}]
        with pytest.raises(TrainingError, match=rf"nonfinite_batch_{rank}\.pt"):
            Guard().check({"a": torch.tensor(float("inf"))}, batch, trainer)
    saved = [torch.load(tmp_path / f"nonfinite_batch_{rank}.pt", weights_only=True) for rank in range(2)]
    assert [int(content["images"][0].max()) for content in saved] == [0, 1]


@pytest.mark.parametrize(
    ("optimiser", "accumulate", "steps"),  # noticed by the next batch, or before the checkpoint at the end of the run
    [("adamw", 1, 6), ("sgd", 2, 6), ("adamw", 2, 3)],
)
def test_nonfinite_gradient_changes_nothing_and_names_its_images(tiny, monkeypatch, optimiser, accumulate, steps):
    """The loss of step 3 is finite, its gradient is not; the last checkpoint stays that of step 2."""
    original, batches, modules = DetectionModule.training_step, [], []

    def broken(self, batch, batch_idx):
        losses = original(self, batch, batch_idx)
        if self.trainer.global_step != 2:
            return losses
        if not modules:
            modules.append((self, {key: value.clone() for key, value in self.state_dict().items()}))
        batches.append(batch)
        zero = self.model.roi_heads.box_predictor.bbox_pred.bias.sum() * 0
        return {**losses, "loss": losses["loss"] + torch.sqrt(zero)}  # the slope at 0 is infinite, and infinity times 0

    monkeypatch.setattr(DetectionModule, "training_step", broken)
    config = tiny(optim__name=optimiser, optim__clip_norm=1.0, optim__accumulate=accumulate, model__norm="group",
                  trainer__checkpoint_every=2, trainer__max_steps=steps, augment__scale_jitter=[0.7, 1.4])  # fmt: skip
    with pytest.raises(TrainingError, match=r"step 3: not finite: the gradients \(norm nan\)") as error:
        train(config)
    ((module, before),) = modules
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    last = torch.load(Path(config.run_dir) / "checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 2
    assert all(torch.equal(value, before[key]) for key, value in last["state_dict"].items())
    saved = torch.load(Path(config.run_dir) / "nonfinite_batch.pt", weights_only=True)
    images, targets = ([part for batch in batches for part in batch[side]] for side in (0, 1))
    assert len(saved["images"]) == 2 * accumulate == str(error.value).count(".png")
    assert all(torch.equal(a, b) for a, b in zip(saved["images"], images, strict=True))
    assert [t["image_id"] for t in saved["targets"]] == [t["image_id"] for t in targets]
    annotations = json.loads(next(Path(config.data.root).glob("shapes-*/train.json")).read_text())
    names = {image["id"]: image["file_name"] for image in annotations["images"]}
    assert all(names[int(t["image_id"])] in str(error.value) for t in targets)


def test_gradients_are_clipped_as_before(tiny, tmp_path):
    """The guard does what Lightning does for ``gradient_clip_val``: PyTorch's clipping by the norm of all gradients."""
    states = []
    for name in ("ours", "lightning"):
        with pytest.MonkeyPatch.context() as patch:
            if name == "lightning":
                patch.delattr(Guard, "on_before_optimizer_step")
                patch.setattr(pl, "Trainer", partial(pl.Trainer, gradient_clip_val=0.1))
            outcome = train(tiny(run_dir=str(tmp_path / name), optim__clip_norm=0.1))
        states.append(torch.load(outcome.last_checkpoint, weights_only=True))
    for key in ("state_dict", "optimizer_states"):
        assert_same(states[0][key], states[1][key], key)


def test_an_optimiser_that_is_not_fused_skips_a_bad_step_too():
    guard, weight = Guard(clip_norm=1.0), torch.nn.Parameter(torch.ones(2))
    optimiser = torch.optim.SGD([weight], 0.5, momentum=0.9, weight_decay=0.1)
    trainer = SimpleNamespace(precision_plugin=None, datamodule=None, global_step=4, accumulate_grad_batches=1)
    for gradient, changes in ((3.0, True), (float("nan"), False)):
        before = weight.detach().clone()
        weight.grad = torch.full((2,), gradient)
        guard.on_before_optimizer_step(trainer, None, optimiser)
        optimiser.step()
        assert torch.equal(weight, before) is not changes
    with pytest.raises(TrainingError, match=r"step 4: not finite: the gradients \(norm nan\)"):
        guard.check({"loss": torch.tensor(1.0)}, None, trainer)


def test_batches_of_other_modules_are_saved_as_they_are(tmp_path):
    trainer = SimpleNamespace(default_root_dir=tmp_path, global_step=4, world_size=1)
    with pytest.raises(TrainingError, match=r"step 5: not finite: loss=nan\. The batch is saved"):
        Guard().check({"loss": torch.tensor(float("nan"))}, torch.ones(3), trainer)
    saved = torch.load(tmp_path / "nonfinite_batch.pt", weights_only=True)
    assert torch.equal(saved["batch"], torch.ones(3))

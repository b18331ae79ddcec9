"""A run that was interrupted and resumed equals one that was not."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from comparing import assert_same, checkpoint_of, rows

from detector.exceptions import ConfigError, WeightsError
from detector.training.callbacks import checkpoints
from detector.training.callbacks.checkpoints import Checkpoints
from detector.training.callbacks.interrupt import Interrupt
from detector.training.resume import find_start
from detector.training.train import train


def stop_after(monkeypatch, step):
    """Let Ctrl-C be pressed while ``step`` runs; None: never."""

    def press(self, trainer, *args):
        if step is not None and trainer.global_step == step - 1:
            self.requested = True

    monkeypatch.setattr(Interrupt, "on_train_batch_start", press, raising=False)


SCHEDULES = {
    "trainer__eval_every": 3,
    "optim__schedule": "cosine",
    "optim__ema": 0.9,
    "augment__scale_jitter": [0.7, 1.4],
}
STATE = (
    "state_dict",
    "current_model_state",
    "averaging_state",
    "optimizer_states",
    "lr_schedulers",
    "callbacks",
    "global_step",
)


@pytest.mark.slow
@pytest.mark.parametrize("stops", [(1,), (2, 3), (3,), (5,), (6,), (7,), (1, 4, 5)])
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
        for key in STATE:
            assert_same(a[key], b[key], f"{name}/{key}")
    assert rows(tmp_path / "whole") == rows(tmp_path / "run")
    assert resumed.result.metrics == whole.result.metrics
    assert resumed.best_step == whole.best_step


@pytest.mark.parametrize("stop", [3, 5, 6])
def test_patience_is_kept(tiny, monkeypatch, stop):
    """Nothing is learned, so the evaluation at step 2 stays the best, and a patience of two ends the run at step 6."""
    settings = {
        "optim__lr": 0.0,
        "model__norm": "group",
        "trainer__max_steps": 20,
        "trainer__eval_every": 2,
        "trainer__early_stopping": 2,
    }
    stop_after(monkeypatch, stop)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(**settings))
    stop_after(monkeypatch, None)
    resumed = train(tiny(resume="auto", **settings))
    assert (resumed.steps, resumed.best_step) == (6, 2)
    assert [row["step"] for row in rows(resumed.folder) if row["val/AP"]] == ["2", "4", "6"]


def test_checkpoints_by_time_hold_whole_steps(tiny, monkeypatch):
    """Gradients that are still being added up would be lost: no checkpoint between the batches of a step."""
    batches = []
    original = Checkpoints.save_last

    def note(self, trainer):
        if self.saved_step != trainer.global_step:
            batches.append(trainer.fit_loop.total_batch_idx + 1)
        original(self, trainer)

    monkeypatch.setattr(Checkpoints, "save_last", note)
    # The time is up while the third batch runs, the first one of step 2.
    monkeypatch.setattr(checkpoints, "any_rank", lambda trainer, wish, every: trainer.fit_loop.total_batch_idx + 1 >= 3)
    train(tiny(optim__accumulate=2, trainer__max_steps=3))
    assert batches == [4, 6]


def test_other_configuration_is_refused(tiny, monkeypatch):
    stop_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        train(tiny())
    with pytest.raises(ConfigError, match=r"model\.fpn_channels: 16 then, 24 now\n  optim\.name: adamw then, sgd now"):
        train(tiny(resume="auto", model__fpn_channels=24, optim__name="sgd"))
    other = {"model__fpn_strides": [8, 16], "model__anchors__sizes": [[8.0], [16.0]]}
    with pytest.raises(ConfigError, match=r"model\.fpn_strides: \[4, 8, 16, 32, 64\] then, \[8, 16\] now"):
        train(tiny(resume="auto", **other))


def test_refused_before_the_data_are_drawn(tiny, tmp_path, monkeypatch):
    stop_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        train(tiny())
    for keys, words in (({"resume": "auto", "seed": 7}, "seed: 0 then, 7 now"), ({}, "there is a run in it already")):
        with pytest.raises(ConfigError, match=words):
            train(tiny(data__root=str(tmp_path / "other"), **keys))
    assert not (tmp_path / "other").exists()


def test_the_command_of_the_message_goes_on_as_it_was(tiny, tmp_path, monkeypatch, call_script):
    """Refused with other keys, a run goes on with those of its config.yaml and ends like one that never stopped."""
    settings = {"trainer__max_steps": 4, "optim__ema": 0.5, "model__head__width": 24}
    train(tiny(run_dir=str(tmp_path / "whole"), **settings))
    stop_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt) as stopped:
        train(tiny(**settings))
    stop_after(monkeypatch, None)
    with pytest.raises(ConfigError, match=r"config\.yaml:\n  python -m detector train ") as refused:
        train(tiny(resume="auto"))
    line = str(refused.value).splitlines()[-1]
    assert str(stopped.value) == f"interrupted; to go on: {line.strip()}"
    code, _, err = call_script(*shlex.split(line)[3:])
    assert code == 0, err
    a, b = checkpoint_of(tmp_path / "whole"), checkpoint_of(tmp_path / "run")
    for key in STATE:
        assert_same(a[key], b[key], key)


def test_other_data_of_the_same_classes_are_said(tiny, tmp_path, monkeypatch, capsys):
    """A run may go on with more data; the same data at another place are no other data."""
    train(tiny(trainer__max_steps=1))  # draws them
    source = next(Path(tiny().data.root).glob("shapes-*"))
    for name in ("a", "b"):
        shutil.copytree(source, tmp_path / name)
    content = json.loads((source / "train.json").read_text())
    del content["images"][0]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 1]
    (tmp_path / "b/train.json").write_text(json.dumps(content))
    boxes = [len(json.loads((tmp_path / name / "train.json").read_text())["annotations"]) for name in ("a", "b")]

    def run(root, steps, **keys):
        files = {"train_images": "images", "val_images": "images"}
        train(tiny(run_dir=str(tmp_path / "own"), data__name="coco", data__root=str(root), trainer__max_steps=steps,
                   **{f"data__{key}": value for key, value in files.items()}, **keys))  # fmt: skip
        return " ".join(capsys.readouterr().out.split())

    assert "other train data" not in run(tmp_path / "a", 1)
    assert "other train data" not in run(source, 2, resume="auto")
    out = run(tmp_path / "b", 3, resume="auto")
    assert (
        f"note other train data than those of the checkpoint: {source}/train.json (10 images, {boxes[0]} boxes) then, "
        f"{tmp_path}/b/train.json (9 images, {boxes[1]} boxes) now; the run goes on with them"
    ) in out
    assert "other val data" not in out


def test_resume_from_a_path_into_a_new_folder(tiny, tmp_path, monkeypatch):
    stop_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        train(tiny())
    stop_after(monkeypatch, None)
    before = (tmp_path / "run/checkpoints/last.ckpt").read_bytes()
    result = train(tiny(resume=str(tmp_path / "run"), run_dir=str(tmp_path / "new")))
    assert result.steps == 4
    assert checkpoint_of(tmp_path / "new")["global_step"] == 4
    assert (tmp_path / "run/checkpoints/last.ckpt").read_bytes() == before


def test_resume_from_a_path_in_its_own_folder(tiny, tmp_path, monkeypatch):
    stop_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        train(tiny())
    stop_after(monkeypatch, None)
    assert train(tiny(resume=str(tmp_path / "run/checkpoints/last.ckpt"))).steps == 4


def test_an_earlier_checkpoint_does_not_replace_later_ones(tiny, tmp_path, monkeypatch):
    """Its own last.ckpt, of another step, would become best.ckpt after the evaluation at the start."""
    train(tiny(trainer__eval_every=2, trainer__max_steps=2))
    early = (tmp_path / "run/checkpoints/last.ckpt").rename(tmp_path / "run/checkpoints/early.ckpt")
    (tmp_path / "run/checkpoints/last.ckpt").write_bytes(early.read_bytes())
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"there is a run in it already.*Choose another run_dir"):
        train(tiny(trainer__eval_every=2, resume=str(early)))
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    (tmp_path / "run/checkpoints/last.ckpt").unlink()
    assert train(tiny(trainer__eval_every=2, resume=str(early))).steps == 4


def test_run_folder_in_the_home_folder(tiny, tmp_path, monkeypatch):
    """Not every shell replaces the tilde in run_dir=~/run; a resumed run must not start anew over the old one."""
    monkeypatch.setenv("HOME", str(tmp_path))
    stop_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(run_dir="~/run"))
    seen = []
    stop_after(monkeypatch, None)
    monkeypatch.setattr(Interrupt, "on_train_start", lambda self, trainer, module: seen.append(trainer.global_step))
    train(tiny(run_dir="~/run", resume="auto"))
    assert seen == [2]


def test_finished_run_is_evaluated_again_and_may_be_made_longer(tiny, tmp_path):
    first = train(tiny(trainer__eval_every=2))
    weights = checkpoint_of(tmp_path / "run")["state_dict"]
    (tmp_path / "run/metrics.json").unlink()
    again = train(tiny(resume="auto", trainer__eval_every=2))
    assert again.result.metrics == first.result.metrics
    assert again.best_step == first.best_step
    assert (tmp_path / "run/metrics.json").is_file()
    assert_same(checkpoint_of(tmp_path / "run")["state_dict"], weights)

    longer = train(tiny(resume="auto", trainer__eval_every=2, trainer__max_steps=6))
    assert longer.steps == 6
    assert checkpoint_of(tmp_path / "run")["global_step"] == 6


def test_auto_without_a_checkpoint_starts_anew(tiny):
    assert train(tiny(resume="auto")).steps == 4


@pytest.mark.parametrize("content", [None, b"", b"rubbish"])
def test_unusable_checkpoint(tiny, tmp_path, content):
    path = tmp_path / "x.ckpt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"x\.ckpt"):
        train(tiny(resume=str(path)))
    assert not (tmp_path / "run").exists()


def test_damaged_last_checkpoint_leaves_the_best(tiny, tmp_path):
    """What the message says to do works."""
    train(tiny(trainer__max_steps=3, trainer__eval_every=2))
    last = tmp_path / "run/checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    best = last.with_name("best.ckpt")
    with pytest.raises(WeightsError, match=rf"last\.ckpt: .*damaged.*: resume={best} run_dir=NEW_FOLDER"):
        train(tiny(resume="auto"))
    outcome = train(tiny(resume=str(best), run_dir=str(tmp_path / "new"), trainer__eval_every=2))
    assert outcome.steps == 4


def test_another_start_is_refused_with_both_values(tiny, tmp_path):
    """The weights that a run began with stand in its config.yaml: a resumed run cannot claim others."""
    began = tiny(trainer__max_steps=2)
    train(began)
    (tmp_path / "other.pth").touch()
    others = {
        "weights": (str(tmp_path / "other.pth"), f"model.weights: none then, {tmp_path / 'other.pth'} now"),
        "class_map": ({"cat": "dog"}, "model.class_map.cat: None then, dog now"),
        "new_classes": ("mean", "model.new_classes: random then, mean now"),
    }
    for key, (value, told) in others.items():
        with pytest.raises(ConfigError, match=re.escape(told)):
            find_start(tiny(trainer__max_steps=2, resume="auto", **{f"model__{key}": value}))


def test_initial_weights_are_not_read_again(tiny, tmp_path, monkeypatch):
    """The file may be gone when the run is resumed."""
    from torchvision.models import mobilenet_v2

    torch.save(mobilenet_v2().state_dict(), tmp_path / "w.pth")
    stop_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(model__weights=str(tmp_path / "w.pth")))
    stop_after(monkeypatch, None)
    (tmp_path / "w.pth").unlink()
    assert train(tiny(model__weights=str(tmp_path / "w.pth"), resume="auto")).steps == 4


def test_an_evaluated_run_goes_on_in_a_new_folder(tiny, tmp_path, caplog):
    caplog.set_level("INFO", "detector")
    first = train(tiny(trainer__max_steps=2, trainer__eval_every=2, resume="auto"))
    assert "last.ckpt: the run starts at step 0" in caplog.text
    longer = tiny(trainer__max_steps=3, trainer__eval_every=2, resume=str(first.folder), run_dir=str(tmp_path / "new"))
    outcome = train(longer)
    assert "trainer.max_steps is 3 and was 2: the learning rate" in caplog.text
    assert outcome.steps == 3
    assert outcome.checkpoint.is_file()
    assert outcome.last_checkpoint.is_file()


def test_other_classes_and_other_rates_are_refused(tiny, monkeypatch):
    train(tiny(trainer__max_steps=1))
    with pytest.raises(ConfigError, match=r"optim\.lr: 0\.001 then, 0\.5 now"):
        train(tiny(trainer__max_steps=2, resume="auto", optim__lr=0.5))
    monkeypatch.setattr("detector.data.datamodule.DetectionDataModule.class_names", ["a", "b"], raising=False)
    with pytest.raises(ConfigError, match="class names are"):
        train(tiny(trainer__max_steps=2, resume="auto"))

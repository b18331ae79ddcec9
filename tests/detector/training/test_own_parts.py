"""Runs with data sets, transforms, callbacks and loggers of the user's own, and what is wrong with some."""

import importlib.util
import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from comparing import assert_same, checkpoint_of, rows
from test_resume import STATE, stop_after

from detector.config.defaults import default
from detector.config.schema import EvaluateConfig, LoggerConfig
from detector.data.datamodule import DetectionDataModule
from detector.evaluation.detections import Detections
from detector.evaluation.evaluate import evaluate_from_config
from detector.evaluation.ground_truth import GroundTruth
from detector.evaluation.scoring import evaluate
from detector.evaluation.stored_detections import find_stored
from detector.exceptions import CheckpointError, ConfigError
from detector.inference.detector import load
from detector.training.loggers import build_loggers
from detector.training.train import train

DATA = {"_target_": "own_parts.Quick", "count": 7}
COUNT = {"_target_": "own_parts.Count"}
STOP = {"_target_": "pytorch_lightning.callbacks.EarlyStopping", "monitor": "val/APP", "mode": "max"}
TRANSFORMS = [
    {"_target_": "own_parts.Shift", "most": 5},
    {"_target_": "torchvision.transforms.v2.RandomHorizontalFlip"},
]


def own(**keys):
    parts = {"data__name": DATA, "augment__transforms": TRANSFORMS, "callbacks": {"count": COUNT}}
    return {**parts, "trainer__eval_every": 3, "optim__ema": 0.9, **keys}


def test_a_run_on_a_data_set_of_ones_own(tiny, tmp_path):
    """The score is that of its detections on its boxes; evaluations of the run's folder read files only."""
    outcome = train(tiny(**own(logger__sheet_images=2)))
    run = outcome.folder
    assert {"predictions.png", "curves.png", "annotations.json"} <= {path.name for path in run.iterdir()}
    truth = GroundTruth(run / "annotations.json")
    assert truth.class_names == ["dog", "cat"]
    again = evaluate(truth, Detections.from_json(run / "predictions.json"))
    assert again.metrics == outcome.result.metrics
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["name"] == DATA
    assert len(load(run)(np.zeros((48, 32, 3), np.uint8))) == 1  # nothing but the network is made

    (stored,) = find_stored([str(run)])
    assert stored.annotations == run / "annotations.json"
    files = {"predictions": str(run / "predictions.json"), "annotations": str(run / "annotations.json")}
    scored = evaluate_from_config(default(EvaluateConfig, **files, output_dir=str(tmp_path / "scored"), report=False))
    assert scored.result.metrics == outcome.result.metrics
    by_checkpoint = default(EvaluateConfig, checkpoint=str(run), output_dir=str(tmp_path / "again"))
    with pytest.raises(CheckpointError, match=r"own_parts\.Quick.*trust=.own_parts.*images=FOLDER"):
        evaluate_from_config(by_checkpoint)
    again = evaluate_from_config(replace(by_checkpoint, trust="own_parts"))
    assert again.result.metrics == outcome.result.metrics
    assert {"report.html", "predictions.png"} <= {path.name for path in again.folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("stop", [2, 3])
def test_resumed_equals_uninterrupted(tiny, tmp_path, monkeypatch, stop):
    whole = train(tiny(run_dir=str(tmp_path / "whole"), **own()))
    stop_after(monkeypatch, stop)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(resume="auto", **own()))
    stop_after(monkeypatch, None)
    resumed = train(tiny(resume="auto", data__workers=2, **own()))
    a, b = (checkpoint_of(folder) for folder in (tmp_path / "whole", tmp_path / "run"))
    for key in STATE:
        assert_same(a[key], b[key], key)
    assert a["callbacks"]["Count"] == {"batches": 4, "evaluations": 1}  # written before the last evaluation
    assert resumed.result.metrics == whole.result.metrics
    assert rows(tmp_path / "whole") == rows(tmp_path / "run")
    assert [row["mine/batches"] for row in rows(tmp_path / "run") if row["train/loss"]] == ["1.0", "2.0", "3.0", "4.0"]


def test_what_callbacks_log_is_in_our_rows(tiny):
    operator = {"_target_": "user_parts.Pooler"}
    alone = train(tiny(run_dir=str(tiny().run_dir) + "-alone", trainer__log_every=2, roi__kind=operator))
    # The run has its classes from whoever configured it, its file from anybody.
    assert alone.load().module.model.roi_heads.box_roi_pool.module.gain.shape == (1,)
    with pytest.raises(CheckpointError, match="trust='user_parts'"):
        load(alone.checkpoint)
    outcome = train(tiny(callbacks={"count": COUNT, "nothing": None}, trainer__log_every=2, roi__kind=operator))
    found = rows(outcome.folder)
    assert [(row["step"], row.pop("mine/batches")) for row in found if row["train/loss"]] == [
        ("1", "1.0"), ("2", "2.0"), ("4", "4.0"),
    ]  # fmt: skip
    assert [{k: v for k, v in row.items() if k != "mine/batches"} for row in found] == rows(alone.folder)


def test_lightnings_checkpoints_and_early_stopping(tiny, tmp_path):
    """Nothing is learned: the second evaluation is no better, which ends the run."""
    callbacks = {
        "stop": {"_target_": "pytorch_lightning.callbacks.EarlyStopping", "patience": 1},
        "keep": {"_target_": "pytorch_lightning.callbacks.ModelCheckpoint", "filename": "mine"},
    }
    callbacks["keep"]["dirpath"] = str(tmp_path / "kept")
    for node in callbacks.values():
        node.update(monitor="val/AP", mode="max")
    outcome = train(tiny(callbacks=callbacks, optim__lr=0.0, model__norm="group", trainer__eval_every=1))
    assert outcome.steps == 2
    assert load(tmp_path / "kept" / "mine.ckpt").class_names


@pytest.mark.parametrize(
    ("callback", "words"),
    [
        ({"_target_": "own_parts.Nobody"}, "callbacks.x: own_parts.Nobody: own_parts has no Nobody"),
        ({"_target_": "own_parts.Kept", "save_dir": "."}, "callbacks.x: own_parts.Kept made .*Callback"),
        ({"_target_": "own_parts.Secret"}, "callbacks: Secret has when=datetime"),
        ({"_target_": "pytorch_lightning.callbacks.LearningRateMonitor"}, "LearningRateMonitor .*train/lr"),
    ],
)
def test_callbacks_that_cannot_be_used(tiny, callback, words):
    with pytest.raises(ConfigError, match=words):
        train(tiny(callbacks={"x": callback}))


def test_loggers_get_what_ours_get(tiny):
    extra = {"kept": {"_target_": "own_parts.Kept"}, "again": {"_target_": "own_parts.Kept", "file": "again.jsonl"},
             "csv": {"_target_": "pytorch_lightning.loggers.CSVLogger", "name": "lightning"}}  # fmt: skip
    outcome = train(tiny(logger__extra=extra, seed=5))
    lines = [json.loads(line) for line in (outcome.folder / "kept.jsonl").read_text().splitlines()]
    assert lines[0] == {"config": 5}
    expected = [
        {"step": int(row["step"]), "metrics": sorted(name for name, value in row.items() if value and name != "step")}
        for row in rows(outcome.folder)
    ]
    measured = ("train/images_per_s", "train/data_wait", "train/memory_gb")
    assert [{**line, "metrics": [m for m in line["metrics"] if m not in measured]} for line in lines[1:]] == expected
    assert (outcome.folder / "again.jsonl").read_text() == (outcome.folder / "kept.jsonl").read_text()
    assert (outcome.folder / "lightning" / "version_0" / "metrics.csv").is_file()


@pytest.mark.parametrize(
    ("logger", "words"),
    [
        ({"_target_": "own_parts.Nobody"}, "logger.extra.x: own_parts.Nobody"),
        ({"_target_": "own_parts.Count"}, "logger.extra.x: own_parts.Count made .*Logger"),
        ({"_target_": "own_parts.Kept", "fil": "a"}, "logger.extra.x: own_parts.Kept has no argument fil"),
    ],
)
def test_loggers_that_cannot_be_used(tiny, logger, words):
    with pytest.raises(ConfigError, match=words):
        train(tiny(logger__extra={"x": logger}))


def test_a_wandb_run_goes_on(tmp_path, monkeypatch):
    """The same id in the same folder, another in another; W&B is told that a run of this id may exist."""
    from pytorch_lightning.loggers import wandb as logger_of

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace())
    monkeypatch.setattr(logger_of, "_WANDB_AVAILABLE", True)
    node = {"_target_": "pytorch_lightning.loggers.WandbLogger", "project": "cells"}
    wanted = default(LoggerConfig, csv=False, tensorboard=False, extra={"wandb": node})
    told = []
    for folder, step in (("a", 0), ("a", 3), ("b", 0)):
        (logger,) = build_loggers(wanted, tmp_path / folder, step)
        told.append({key: logger._wandb_init[key] for key in ("id", "resume", "project", "dir")})
    assert told[0] == told[1]
    assert told[0] == {"id": (tmp_path / "a/run_id.txt").read_text(), "resume": "allow", "project": "cells",
                       "dir": str(tmp_path / "a")}  # fmt: skip
    assert told[2]["id"] != told[0]["id"]


def test_wandb_is_not_installed(tiny):
    if importlib.util.find_spec("wandb"):
        pytest.skip("it is")
    node = {"_target_": "pytorch_lightning.loggers.WandbLogger", "project": "cells"}
    with pytest.raises(ConfigError, match=r"logger.extra.wandb: .*WandbLogger failed.*pip install.*wandb"):
        train(tiny(logger__extra={"wandb": node}))


def test_pairs_see_the_same_batches(tiny):
    """Whatever else differs, runs of one seed have the same transformed images."""
    batches = []
    for keys in ({"roi__kind": "align"}, {"roi__kind": "pool", "optim__name": "sgd"}, {"seed": 1}):
        data = DetectionDataModule(tiny(**own(), **keys))
        data.setup()
        batches.append(data.training_batch(0)[0])
    assert all((a == b).all() for a, b in zip(batches[0], batches[1], strict=True))
    assert not all(a.shape == b.shape and (a == b).all() for a, b in zip(batches[0], batches[2], strict=True))


@pytest.mark.parametrize(
    ("keys", "facts"),
    [
        ({"callbacks": {"ok": COUNT, "none": None, "stop": STOP}}, ["callbacks.stop: ", "EarlyStopping", "val/APP"]),
        (
            {"logger__extra": {"mine": {"_target_": "own_parts.FullTable"}}},
            ["logger.extra.mine: own_parts.", "full"],
        ),
    ],
)
def test_what_a_part_of_ones_own_raises_in_training_is_told_with_its_key(tiny, keys, facts):
    with pytest.raises(ConfigError) as caught:
        train(tiny(**keys))
    assert [fact for fact in [*facts, "RuntimeError"] if fact not in str(caught.value)] == []
    assert type(caught.value.__cause__) is RuntimeError

"""Runs that start from a trained detector: what comes along, what is kept, and what is forgotten."""

import json
from dataclasses import replace

import pytest
import torch
from comparing import assert_same

import detector
from detector.config.defaults import default
from detector.config.schema import EvaluateConfig
from detector.evaluation.evaluate import evaluate_checkpoint
from detector.evaluation.result_tables import as_text
from detector.exceptions import ConfigError, DataError, WeightsError
from detector.models.checkpoint import read_checkpoint
from detector.training.forgetting import OldClass, forgetting_table
from detector.training.module import DetectionModule
from detector.training.train import train

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def start(tiny, data_set, checkpoint):
    """A function: keys -> a run of one step that learns nothing, on images of dogs, from a detector of both."""
    saved = torch.load(checkpoint, weights_only=True)
    for key in ("rpn.head.bbox_pred", "roi_heads.box_predictor.bbox_pred"):  # boxes are anchors, and some of them fit
        saved["state_dict"][f"model.{key}.weight"].zero_()
    config = saved["hyper_parameters"]["config"]
    config["model"]["head"].update(score_thresh=0.0, detections_per_image=100, nms_thresh=0.9)
    torch.save(saved, checkpoint)
    content = json.loads((data_set / "val.json").read_text())
    content["categories"] = [{"id": 1, "name": "Dogs"}]
    content["annotations"] = [{**a, "category_id": 1} for a in content["annotations"] if a["category_id"] == 7]
    for name in ("train.json", "dogs.json"):
        (data_set / name).write_text(json.dumps(content))

    def make(**keys):
        run = tiny(
            data__name="coco", data__root=str(data_set), data__val_annotations="dogs.json", logger__sheet_images=2,
            trainer__max_steps=1, optim__lr=0.0, model__new_classes="mean",
        )  # fmt: skip
        model = {**config["model"], "weights": str(checkpoint)}
        run.model = replace(
            run.model, norm="frozen", fpn_channels=8, weights=model["weights"], max_size=96,
            head=replace(run.model.head, **config["model"]["head"]),
            rpn=replace(run.model.rpn, **config["model"]["rpn"]),
            anchors=replace(run.model.anchors, **config["model"]["anchors"]),
        )  # fmt: skip
        for key, value in keys.items():
            group, name = key.split("__")
            setattr(getattr(run, group), name, value)
        return run

    return make


def scored(path, **keys):
    """AP of each class by the command `evaluate`."""
    given = {"checkpoint": str(path), "output_dir": str(path.parent / "evaluated"), "batch_size": 8, "workers": 0}
    found = evaluate_checkpoint(default(EvaluateConfig, **given, accelerator="cpu", report=False, **keys))
    return {result.name: result.AP for result in found.result.per_class}, found.result


def test_kept_classes_are_scored_before_and_after(start, data_set, checkpoint, capsys):
    """Nothing was learned, so that nothing can be forgotten; `evaluate` says what the numbers have to be."""
    old = {"annotations": str(data_set / "val.json"), "images": str(data_set / "images")}
    expected, _ = scored(checkpoint)
    assert 0 < expected["cat"] != expected["dog"] > 0
    outcome = train(start(model__keep_classes=True, data__old_val_annotations="val.json"))
    said = capsys.readouterr().out
    assert all(
        words in said for words in ("start  ", "Dogs", "kept: not in the data", "AP of the classes it knew before")
    )
    stored = read_checkpoint(outcome.checkpoint)
    assert (stored.class_names, stored.category_ids) == (["Dogs", "cat"], [1, 3])
    rows = json.loads((outcome.folder / "forgetting.json").read_text())["classes"]
    assert [(row["name"], row["boxes"], row["became"]) for row in rows] == [("cat", 2, ["cat"]), ("dog", 3, ["Dogs"])]
    for row in rows:
        assert row["before"] == pytest.approx(expected[row["name"]], abs=1e-12)
        assert row["after"] == pytest.approx(expected[row["name"]], abs=1e-12)
    # The run's own validation has dogs only: no cat is scored, and none is in the files.
    assert [entry.name for entry in outcome.result.per_class] == ["Dogs"]
    found = json.loads((outcome.folder / "predictions.json").read_text())
    assert {entry["category_id"] for entry in found} == {1}
    own, result = scored(outcome.checkpoint)
    assert own == {"Dogs": pytest.approx(outcome.result.metrics["AP"])}
    assert any("Not scored" in note and "cat" in note for note in result.notes)
    assert not any("matched by name" in note for note in result.notes)
    with pytest.raises(DataError, match=r"annotations: 3 cat, 7 dog\n.*has Dogs\n.*have dog\n"):
        scored(outcome.checkpoint, **old)
    content = json.loads((data_set / "val.json").read_text())
    content["categories"][1]["name"] = "Dogs"
    (data_set / "val.json").write_text(json.dumps(content))
    assert scored(outcome.checkpoint, **old)[0] == {"cat": expected["cat"], "Dogs": expected["dog"]}


@pytest.mark.parametrize(
    ("group", "keys"),
    [
        ("head", {"score_thresh": 0.9}),
        ("head", {"nms_thresh": 0.1, "detections_per_image": 1}),
        ("rpn", {"nms_thresh": 0.1, "pre_nms_top_n_test": 3, "post_nms_top_n_test": 2}),
    ],
)
def test_other_limits_are_nothing_forgotten(start, checkpoint, group, keys):
    """The run's own limits leave fewer detections; both numbers are those with the limits of the old run."""
    expected, _ = scored(checkpoint)
    config = start(model__keep_classes=True, data__old_val_annotations="val.json")
    setattr(config.model, group, replace(getattr(config.model, group), **keys))
    outcome = train(config)
    rows = json.loads((outcome.folder / "forgetting.json").read_text())["classes"]
    assert {row["name"]: row["before"] for row in rows} == {name: pytest.approx(ap) for name, ap in expected.items()}
    assert [row["after"] for row in rows] == [row["before"] for row in rows]
    assert min(row["after"] for row in rows) > 0


def test_another_size_of_images_is_said(start, capsys):
    """At the start and at the end, as the images themselves are others."""
    train(start(model__keep_classes=True, data__old_val_annotations="val.json", model__min_size=[48]))
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("model.min_size [64] before, [48] after") == 2
    assert "model.max_size" not in said


def test_the_initial_detector_is_read_once(start, checkpoint, data_set, capsys, monkeypatch):
    """A resumed run, the module alone and `load` do without it, and the end of a run that was measured before."""
    config = start(model__keep_classes=True, data__old_val_annotations="val.json", optim__lr=1e-3)
    monkeypatch.setattr("detector.training.train.announce", lambda *_: checkpoint.unlink())
    outcome = train(config)
    monkeypatch.undo()
    rows = json.loads((outcome.folder / "forgetting.json").read_text())["classes"]
    assert all(isinstance(row[key], float) for row in rows for key in ("before", "after"))
    path = outcome.checkpoint
    module = DetectionModule.load_from_checkpoint(path, weights_only=True)
    assert (module.class_names, module.category_ids, module.start) == (["Dogs", "cat"], [1, 3], [])
    assert_same(module.state_dict(), read_checkpoint(path).content["state_dict"])
    assert detector.load(path, "cpu").class_names == ["Dogs", "cat"]
    config.trainer.max_steps, config.resume = 2, "auto"
    capsys.readouterr()
    resumed = train(config)
    assert resumed.steps == 2
    assert "AP of the classes it knew before" in capsys.readouterr().out
    again = json.loads((outcome.folder / "forgetting.json").read_text())["classes"]
    assert [row["before"] for row in again] == [row["before"] for row in rows]
    assert read_checkpoint(resumed.folder / "checkpoints" / "last.ckpt").class_names == ["Dogs", "cat"]
    (outcome.folder / "forgetting.json").unlink()
    config.trainer.max_steps = 3
    train(config)
    assert "data.old_val_annotations: the run that goes on has no forgetting.json" in capsys.readouterr().out
    config.model.keep_classes, config.trainer.max_steps = False, 4
    with pytest.raises(ConfigError, match=r"model\.keep_classes: True then, False now"):
        train(config)


def test_classes_that_become_one_have_no_number_of_their_own(start):
    keys = {"model__class_map": {"cat": "Dogs", "dog": "Dogs"}, "data__old_val_annotations": "val.json"}
    outcome = train(start(**keys))
    rows = json.loads((outcome.folder / "forgetting.json").read_text())["classes"]
    assert [(row["name"], row["before"] > 0, row["after"], row["became"]) for row in rows] == [
        ("cat", True, None, ["Dogs"]),
        ("dog", True, None, ["Dogs"]),
    ]


def test_a_dropped_class_has_no_number_after_it(start, checkpoint):
    outcome = train(start(data__old_val_annotations="val.json"))
    assert read_checkpoint(outcome.checkpoint).class_names == ["Dogs"]
    rows = json.loads((outcome.folder / "forgetting.json").read_text())["classes"]
    assert [(row["name"], row["after"] is None, row["became"]) for row in rows] == [
        ("cat", True, []),
        ("dog", False, ["Dogs"]),
    ]


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({"model__weights": "none"}, ConfigError, r"old_val_annotations: model\.weights=none is no trained detector"),
        ({"data__old_val_annotations": "gone.json"}, DataError, r"gone\.json.*data\.old_val_annotations"),
        ({"data__old_val_images": "gone"}, DataError, "gone"),
        ({"data__old_val_annotations": "birds.json"}, ConfigError, r"birds\.json has none of the classes.*cat, dog"),
        ({"data__old_val_annotations": "alike.json"}, WeightsError, r"CAT, Cat.*[Rr]emove them in .*alike\.json"),
    ],
)
def test_old_data_are_refused_before_the_training(start, data_set, keys, error, message):
    content = json.loads((data_set / "val.json").read_text())
    content["categories"] = [{"id": i, "name": f"bird{i}"} for i in (3, 7)]
    (data_set / "birds.json").write_text(json.dumps(content))
    content["categories"] = [{"id": 3, "name": "Cat"}, {"id": 7, "name": "CAT"}]
    (data_set / "alike.json").write_text(json.dumps(content))
    config = start(**{"data__old_val_annotations": "val.json", **keys})
    with pytest.raises(error, match=message):
        train(config)
    assert not (data_set.parent / "run" / "checkpoints").exists()


def test_table():
    lines = as_text(
        forgetting_table(
            [
                OldClass("cat", 1200, 0.5, 0.25, ["cat"]),
                OldClass("dog", 3, 0.25, 0.5, ["Dogs"]),
                OldClass("cow", 1, 0.75, None, []),
                OldClass("emu", 0, None, None, ["emu"]),
            ]
        )
    ).splitlines()
    rows = [line.split() for line in lines if line.strip()]
    for row in (["cat", "1,200", "0.500", "0.250", "-0.250"], ["dog", "(Dogs)", "3", "0.250", "0.500", "+0.250"],
                ["cow", "(dropped)", "1", "0.750", "n/a", "n/a"], ["mean", "0.375", "0.375", "+0.000"]):  # fmt: skip
        assert any([word for word in found if word not in "│┃"] == row for found in rows), (row, rows)

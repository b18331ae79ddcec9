"""A checkpoint is run on its own data or on others, and scored."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from evaluating import settings
from PIL import Image
from untrained import IDS

from detector.data.coco import CocoDataset
from detector.data.loader import DetectionLoader
from detector.evaluation.detect import run_detector
from detector.evaluation.detections import Detections
from detector.evaluation.evaluate import evaluate_checkpoint, evaluate_from_config
from detector.evaluation.metrics import METRIC_NAMES
from detector.evaluation.scoring import evaluate
from detector.exceptions import ConfigError, DataError, WeightsError
from detector.inference.detector import load

pytestmark = pytest.mark.usefixtures("elsewhere")


def test_a_checkpoint_on_its_own_validation_set(checkpoint, data_set):
    found = evaluate_from_config(settings(checkpoint=str(checkpoint), report=True, resamples=20))
    result, folder = found.result, found.folder
    assert folder == checkpoint.parents[1] / "evaluate" / "best"
    assert sorted(p.name for p in folder.iterdir()) == [
        "classes.csv",
        "images.csv",
        "metrics.json",
        "plots",
        "predictions.json",
        "predictions.png",
        "report.html",
    ]
    content = json.loads((folder / "metrics.json").read_text())
    assert {name: content[name] for name in METRIC_NAMES} == result.metrics
    assert content["meta"]["inputs"] == {"checkpoint": str(checkpoint.resolve())}
    assert content["meta"]["data"] == {"annotations": str(data_set / "val.json"), "images": str(data_set / "images")}
    assert (result.images, result.boxes) == (5, 3)

    # The results file alone gives the very same numbers.
    found = Detections.from_json(folder / "predictions.json", [10, 20, 30, 40, 50], IDS)
    assert len(found) == result.detections > 0
    assert set(found.category_id.tolist()) <= set(IDS)
    assert evaluate(data_set / "val.json", found).metrics == result.metrics


def test_the_detections_are_those_of_the_model(checkpoint, data_set):
    from detector.models.checkpoint import load_trained_model

    module = load_trained_model(checkpoint)
    dataset = CocoDataset(data_set / "val.json", data_set / "images")
    run = run_detector(module, DetectionLoader(dataset), IDS, [1, 4])
    assert run.detections.images.tolist() == [40, 10, 30, 20, 50]
    with torch.inference_mode():
        one = module([dataset[1][0]])
    expected = Detections.from_model(one, [10], IDS)
    mine = run.detections.only([10])
    assert mine.boxes_xywh.tolist() == expected.boxes_xywh.tolist()
    assert mine.score.tolist() == expected.score.tolist()
    assert [int(target["image_id"]) for _, target, _ in run.samples] == [10, 50]
    assert torch.equal(run.samples[0][2]["boxes"], one[0]["boxes"])
    assert torch.equal(run.samples[0][0], dataset[1][0])
    assert run.images_per_second > 0


def test_the_autocast_of_training_is_used(checkpoint, data_set):
    from detector.models.checkpoint import load_trained_model

    module = load_trained_model(checkpoint)
    dataset = CocoDataset(data_set / "val.json", data_set / "images")
    seen = []
    module.model.backbone.register_forward_hook(
        lambda *_: seen.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)
    )
    for precision in ("32", "bf16-mixed", "16-mixed"):
        module.config.trainer = replace(module.config.trainer, precision=precision)
        run_detector(module, DetectionLoader(dataset, batch_size=8), IDS)
    assert seen == [None, torch.bfloat16, None]


def test_another_data_set_with_renumbered_categories(checkpoint, data_set, tmp_path):
    """Same names, other ids in another order: the numbers are the same, and a note says what was done."""
    own = evaluate_checkpoint(settings(checkpoint=str(checkpoint))).result
    content = json.loads((data_set / "val.json").read_text())
    content["categories"] = [{"id": 2, "name": "cat"}, {"id": 1, "name": "dog"}]
    for annotation in content["annotations"]:
        annotation["category_id"] = {3: 2, 7: 1}[annotation["category_id"]]
    other = tmp_path / "other.json"
    other.write_text(json.dumps(content))
    config = settings(
        checkpoint=str(checkpoint),
        annotations=str(other),
        images=str(data_set / "images"),
        output_dir=str(tmp_path / "out"),
        sheet_images=0,
    )
    found = evaluate_from_config(config)
    result, folder = found.result, found.folder
    assert result.metrics == own.metrics
    assert result.notes[-1].startswith("Category ids are not those of the training data")
    assert {c.name: c.AP for c in result.per_class} == {c.name: c.AP for c in own.per_class}
    assert not (folder / "predictions.png").exists()
    assert json.loads((folder / "metrics.json").read_text())["notes"] == result.notes


def test_other_classes_are_an_error(checkpoint, data_set, tmp_path):
    text = (data_set / "val.json").read_text().replace('"dog"', '"yak"')
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(DataError, match="are not the same") as caught:
        evaluate_checkpoint(
            settings(
                checkpoint=str(checkpoint), annotations=str(tmp_path / "other.json"), images=str(data_set / "images")
            )
        )
    assert "only the annotations have yak" in str(caught.value)


def test_classes_that_the_detector_does_not_know_can_be_left_out(checkpoint, data_set, tmp_path):
    """By the key of the command, and by that of the training without being named again."""
    own = evaluate_checkpoint(settings(checkpoint=str(checkpoint))).result
    content = json.loads((data_set / "val.json").read_text())
    content["categories"].append({"id": 0, "name": "_background_"})
    (data_set / "val.json").write_text(json.dumps(content))
    given = {"annotations": str(data_set / "val.json"), "images": str(data_set / "images")}
    with pytest.raises(DataError, match="only the annotations have _background_"):
        evaluate_checkpoint(settings(checkpoint=str(checkpoint), **given))
    with pytest.raises(ConfigError, match=r"drop_categories: .*has no class 'background'"):
        evaluate_checkpoint(settings(checkpoint=str(checkpoint), **given, drop_categories=["background"]))
    result = evaluate_checkpoint(settings(checkpoint=str(checkpoint), **given, drop_categories=["_background_"])).result
    assert result.metrics == own.metrics
    assert "Not scored (drop_categories): class _background_ with 0 annotations." in result.notes
    saved = torch.load(checkpoint, weights_only=True)
    saved["hyper_parameters"]["config"]["data"]["drop_categories"] = ["_background_", "gone"]
    torch.save(saved, checkpoint)
    assert evaluate_checkpoint(settings(checkpoint=str(checkpoint))).result.metrics == own.metrics


@pytest.mark.parametrize("ids", [(3, 7), (7, 3)])
def test_classes_that_the_detector_knows_can_be_left_out(checkpoint, data_set, tmp_path, monkeypatch, ids):
    """The others keep their numbers, the categories renumbered or not, and no detection of it is written or drawn."""
    saved = torch.load(checkpoint, weights_only=True)  # enough detections for both classes
    saved["hyper_parameters"]["config"]["model"]["head"]["detections_per_image"] = 100
    torch.save(saved, checkpoint)
    drawn = {}
    monkeypatch.setattr(
        "detector.evaluation.evaluate.draw_prediction_sheet",
        lambda samples, _, out: drawn.update({out.parent.name: {k for s in samples for k in s[2]["labels"].tolist()}}),
    )
    own = evaluate_checkpoint(settings(checkpoint=str(checkpoint), output_dir=str(tmp_path / "own"))).result
    content, new = json.loads((data_set / "val.json").read_text()), dict(zip((3, 7), ids, strict=True))
    for category in content["categories"]:
        category["id"] = new[category["id"]]
    for annotation in content["annotations"]:
        annotation["category_id"] = new[annotation["category_id"]]
    (data_set / "val.json").write_text(json.dumps(content))
    config = settings(checkpoint=str(checkpoint), output_dir=str(tmp_path / "out"), drop_categories=["dog"])
    result = evaluate_checkpoint(config).result
    (cat,) = result.per_class
    assert (cat.name, cat.AP) == ("cat", own.per_class[0].AP)
    everything, kept = (json.loads((tmp_path / n / "predictions.json").read_text()) for n in ("own", "out"))
    assert {entry["category_id"] for entry in everything} == {3, 7}
    assert [e["score"] for e in kept] == [e["score"] for e in everything if e["category_id"] == 3]
    assert {entry["category_id"] for entry in kept} == {ids[0]}
    assert drawn == {"own": {1, 2}, "out": {1}}


def test_classes_that_were_kept_are_scored_although_the_training_data_were_without(checkpoint, data_set, tmp_path):
    """The detector has the dog of the run before, whose boxes its own data left out."""
    given = {"annotations": str(data_set / "val.json"), "images": str(data_set / "images"), "resamples": 0}
    before = evaluate_checkpoint(settings(checkpoint=str(checkpoint), **given)).result
    saved = torch.load(checkpoint, weights_only=True)
    saved["hyper_parameters"]["config"]["model"]["keep_classes"] = True
    saved["hyper_parameters"]["config"]["data"]["drop_categories"] = ["dog"]
    torch.save(saved, checkpoint)
    after = evaluate_checkpoint(settings(checkpoint=str(checkpoint), **given)).result
    assert [row.name for row in after.per_class] == ["cat", "dog"]
    assert after.metrics == before.metrics
    assert not any("Not scored" in note for note in after.notes)
    own = evaluate_checkpoint(settings(checkpoint=str(checkpoint), resamples=0)).result  # as in its training
    assert [row.name for row in own.per_class] == ["cat"]


def test_the_score_threshold_can_be_raised(checkpoint):
    low = evaluate_checkpoint(settings(checkpoint=str(checkpoint))).result
    lowest = evaluate_checkpoint(settings(checkpoint=str(checkpoint), score_thresh=0.0)).result
    assert lowest.detections >= low.detections
    result = evaluate_checkpoint(settings(checkpoint=str(checkpoint), score_thresh=1.0)).result
    assert result.detections == 0
    assert result.metrics["AP"] == 0.0
    assert "There are no detections" in result.notes[0]


def changed(data_set, name, **box):
    """A copy of ``val.json`` with one more annotation."""
    content = json.loads((data_set / "val.json").read_text())
    content["annotations"].append({"id": 99, "image_id": 30, "category_id": 3, "area": 100, "iscrowd": 0, **box})
    (data_set / name).write_text(json.dumps(content))
    return data_set / name


def test_boxes_that_leave_their_image_are_scored_as_they_are(checkpoint, data_set):
    """The data set of a training is refused for them; numbers are those of pycocotools on the file."""
    file = changed(data_set, "val2.json", bbox=[40, 30, 40, 40])
    with pytest.raises(DataError, match="leaves its image"):
        CocoDataset(file, data_set / "images")
    config = settings(checkpoint=str(checkpoint), annotations=str(file), images=str(data_set / "images"))
    result = evaluate_checkpoint(config).result
    found = Detections.from_json(checkpoint.parents[1] / "evaluate" / "best-val2" / "predictions.json")
    assert result.boxes == 4
    assert result.metrics == evaluate(file, found, evaluator="pycocotools").metrics


def test_what_is_missing_or_unreadable_is_left_out_by_the_key_that_the_message_names(call_script, checkpoint, data_set):
    file = changed(data_set, "val2.json", bbox=None)
    (data_set / "images" / "20.png").unlink()
    arguments = [f"checkpoint={checkpoint}", f"annotations={file}", f"images={data_set / 'images'}", "workers=0"]
    arguments += ["accelerator=cpu", "report=false", "progress_bar=false"]
    code, _, missing = call_script("evaluate", *arguments)
    assert (code, "20.png" in missing) == (2, True)
    (key,) = set(re.findall(r"([\w.]*on_invalid=drop)", missing))
    assert call_script("evaluate", *arguments, key)[0] == 0
    (data_set / "images" / "20.png").write_bytes((data_set / "images" / "10.png").read_bytes())
    code, _, unreadable = call_script("evaluate", *arguments)
    assert (code, "annotation 99" in unreadable) == (2, True)
    (key,) = set(re.findall(r"([\w.]*on_invalid=drop)", unreadable))
    code, out, _ = call_script("evaluate", *arguments, key)
    assert (code, "annotation 99" in out) == (0, True)
    predictions = f"predictions={checkpoint.parents[1] / 'evaluate/best-val2/predictions.json'}"
    code, _, unreadable = call_script("evaluate", arguments[1], predictions, "report=false")
    (key,) = set(re.findall(r"([\w.]*on_invalid=drop)", unreadable))
    assert call_script("evaluate", arguments[1], predictions, "report=false", key)[0] == 0


def test_dropped_annotations_and_images_follow_the_checkpoint(checkpoint, data_set):
    """A run with on_invalid=drop evaluates although a box is unreadable and a file is missing."""
    changed(data_set, "val.json", bbox=None)
    (data_set / "images" / "20.png").unlink()
    with pytest.raises(DataError, match="on_invalid=drop"):
        evaluate_checkpoint(settings(checkpoint=str(checkpoint)))
    saved = torch.load(checkpoint, weights_only=True)
    saved["hyper_parameters"]["config"]["data"]["on_invalid"] = "drop"
    torch.save(saved, checkpoint)
    result = evaluate_checkpoint(settings(checkpoint=str(checkpoint))).result
    assert (result.images, result.boxes) == (4, 2)
    assert any("annotation 99, image 30 (30.png), box 'missing'" in note for note in result.notes)
    with pytest.raises(DataError, match="on_invalid=drop"):
        evaluate_checkpoint(settings(checkpoint=str(checkpoint), on_invalid="error"))


@pytest.mark.parametrize(
    ("exif", "own", "upright"), [("auto", True, True), ("ignore", True, False), ("ignore", False, False)]
)
def test_photographs_are_turned_as_in_training(checkpoint, data_set, tmp_path, exif, own, upright):
    """On its own validation set and on another one, where nothing tells what was annotated."""
    saved = torch.load(checkpoint, weights_only=True)
    saved["hyper_parameters"]["config"]["data"]["exif"] = exif
    torch.save(saved, checkpoint)
    path = data_set / "images" / "40.png"
    with Image.open(path) as stored:
        stored.load()
        tag = Image.Exif()
        tag[0x0112] = 3  # upside down
        stored.save(path, exif=tag)
    keys = {} if own else {"annotations": str(data_set / "val.json"), "images": str(data_set / "images")}
    folder = evaluate_from_config(settings(checkpoint=str(checkpoint), batch_size=1, **keys)).folder
    pixels = torch.from_numpy(np.asarray(stored).copy()).permute(2, 0, 1) / 255
    (expected,) = load(checkpoint, "cpu").raw([pixels.rot90(2, (1, 2)) if upright else pixels])
    rows = [row for row in json.loads((folder / "predictions.json").read_text()) if row["image_id"] == 40]
    assert [row["score"] for row in rows] == pytest.approx(expected["scores"].tolist(), abs=1e-5)
    assert [row["bbox"][:2] for row in rows] == pytest.approx(np.asarray(expected["boxes"][:, :2]), abs=0.1)


def test_a_run_folder_stands_for_its_best_checkpoint(checkpoint):
    folder = evaluate_from_config(settings(checkpoint=str(checkpoint.parents[1]), sheet_images=0)).folder
    assert folder == checkpoint.parents[1] / "evaluate" / "best"
    evaluate_from_config(settings(checkpoint=str(checkpoint), sheet_images=0))  # the same again, not another one


def test_a_data_set_that_is_gone(checkpoint, data_set):
    data_set.rename(data_set.with_name("moved"))
    with pytest.raises(DataError) as caught:
        evaluate_checkpoint(settings(checkpoint=str(checkpoint)))
    assert f"there is no {data_set / 'val.json'}" in str(caught.value)
    assert "annotations=FILE.json images=FOLDER" in str(caught.value)


def test_the_built_in_data_set_is_drawn_again(checkpoint, tmp_path):
    saved = torch.load(checkpoint, weights_only=True)
    facts = saved["hyper_parameters"]
    facts["config"]["data"] |= {"name": "shapes", "root": str(tmp_path / "drawn")}
    facts["config"]["data"]["shapes"] |= {
        "train_images": 1,
        "val_images": 2,
        "image_size": 64,
        "min_object": 8,
        "max_object": 24,
    }
    torch.save(saved, checkpoint)
    with pytest.raises(DataError, match="are not the same"):  # it has shapes, not cats and dogs
        evaluate_checkpoint(settings(checkpoint=str(checkpoint)))
    assert len(list((tmp_path / "drawn").glob("shapes-*/val.json"))) == 1


def test_a_missing_checkpoint(tmp_path):
    with pytest.raises(WeightsError, match="there is no such checkpoint"):
        evaluate_from_config(settings(checkpoint=str(tmp_path / "none.ckpt")))


def test_the_progress_bar_goes_to_standard_error(checkpoint, capsys):
    evaluate_checkpoint(settings(checkpoint=str(checkpoint), progress_bar=True, sheet_images=0))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "detecting" in printed.err
    assert "5/5" in printed.err
    assert "images/s" in printed.err

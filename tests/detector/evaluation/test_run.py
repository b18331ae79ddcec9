import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from untrained import IDS, NAMES, make_content

from detector.config import EvaluateConfig, to_dict
from detector.data.coco import CocoDataset
from detector.errors import ConfigError, DataError, WeightsError
from detector.evaluation.coco import METRIC_NAMES, evaluate
from detector.evaluation.detect import run_detector
from detector.evaluation.detections import Detections
from detector.evaluation.run import check_inputs, evaluate_checkpoint, evaluate_files, evaluate_from_config


@pytest.fixture
def data_set(tmp_path):
    """Five small images of two sizes; one has a crowd, one has nothing. Returns the folder."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    categories = [{"id": i, "name": n} for i, n in zip(IDS, NAMES, strict=True)]
    content = {"images": [], "annotations": [], "categories": categories}
    for image_id, (height, width) in zip((40, 10, 30, 20, 50), [(64, 64), (48, 80)] * 2 + [(64, 64)], strict=True):
        name = f"{image_id}.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / "images" / name)
        content["images"].append({"id": image_id, "file_name": name, "height": height, "width": width})
        if image_id != 30:
            content["annotations"].append(
                {
                    "id": image_id,
                    "image_id": image_id,
                    "category_id": IDS[image_id % 20 // 10],
                    "bbox": [5, 5, 30, 30],
                    "area": 900,
                    "iscrowd": int(image_id == 50),
                }
            )
    (folder / "val.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def checkpoint_content():
    return make_content()


@pytest.fixture
def checkpoint(tmp_path, data_set, checkpoint_content):
    """The checkpoint in a run folder, trained (it says) on ``data_set``."""
    facts = checkpoint_content["hyper_parameters"]
    config = {**facts["config"], "data": {**facts["config"]["data"], "root": str(data_set)}}
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    path.parent.mkdir(parents=True)
    torch.save({**checkpoint_content, "hyper_parameters": {**facts, "config": config}}, path)
    return path


def settings(**changes):
    usual = {"accelerator": "cpu", "workers": 0, "batch_size": 2, "progress_bar": False, "report": False}
    return EvaluateConfig(**{**usual, **changes})


# ------------------------------------------------------------------------------------------- checkpoints
def test_a_checkpoint_on_its_own_validation_set(checkpoint, data_set):
    result, _, folder = evaluate_from_config(settings(checkpoint=str(checkpoint), report=True, resamples=20))
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
    from detector.checkpoint import load

    module = load(checkpoint)
    dataset = CocoDataset(data_set / "val.json", data_set / "images")
    run = run_detector(module, dataset, IDS, batch_size=1, sample=[1, 4])
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
    from detector.checkpoint import load

    module = load(checkpoint)
    dataset = CocoDataset(data_set / "val.json", data_set / "images")
    seen = []
    module.model.backbone.register_forward_hook(
        lambda *_: seen.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)
    )
    for precision in ("32", "bf16-mixed", "16-mixed"):
        module.config.trainer = replace(module.config.trainer, precision=precision)
        run_detector(module, dataset, IDS, batch_size=8)
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
    result, _, folder = evaluate_from_config(config)
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


def test_the_score_threshold_can_be_raised(checkpoint):
    low = evaluate_checkpoint(settings(checkpoint=str(checkpoint))).result
    lowest = evaluate_checkpoint(settings(checkpoint=str(checkpoint), score_thresh=0.0)).result
    assert lowest.detections >= low.detections
    result = evaluate_checkpoint(settings(checkpoint=str(checkpoint), score_thresh=1.0)).result
    assert result.detections == 0
    assert result.metrics["AP"] == 0.0
    assert "There are no detections" in result.notes[0]


def test_dropped_annotations_and_images_follow_the_checkpoint(checkpoint, data_set):
    """A run with on_invalid=drop evaluates although a box is unreadable and a file is missing."""
    content = json.loads((data_set / "val.json").read_text())
    content["annotations"].append({"id": 99, "image_id": 30, "category_id": 3, "bbox": None})
    (data_set / "val.json").write_text(json.dumps(content))
    (data_set / "images" / "20.png").unlink()
    with pytest.raises(DataError, match="on_invalid=drop"):
        evaluate_checkpoint(settings(checkpoint=str(checkpoint)))
    saved = torch.load(checkpoint, weights_only=True)
    saved["hyper_parameters"]["config"]["data"]["on_invalid"] = "drop"
    torch.save(saved, checkpoint)
    result = evaluate_checkpoint(settings(checkpoint=str(checkpoint))).result
    assert (result.images, result.boxes) == (4, 2)
    assert any("annotation 99, image 30 (30.png), box 'missing'" in note for note in result.notes)


def test_a_run_folder_stands_for_its_best_checkpoint(checkpoint):
    _, _, folder = evaluate_from_config(settings(checkpoint=str(checkpoint.parents[1]), sheet_images=0))
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


# ----------------------------------------------------------------------------------------- results files
@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """Results without a folder of their own go into ``runs/`` of the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def results(write_json, truth_content):
    entries = [{"image_id": 12, "category_id": 3, "bbox": [10, 10, 40, 40], "score": 0.9}]
    return write_json("gt.json", truth_content), write_json("dt.json", entries)


def test_a_results_file(results, tmp_path):
    annotations, predictions = results
    result, analysis, folder = evaluate_files(
        settings(annotations=str(annotations), predictions=str(predictions), output_dir=str(tmp_path / "out"))
    )
    assert (analysis, folder) == (None, tmp_path / "out")
    assert result.metrics == evaluate(annotations, Detections.from_json(predictions)).metrics
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {name: content[name] for name in METRIC_NAMES} == result.metrics
    assert content["meta"]["inputs"] == {"annotations": str(annotations), "predictions": str(predictions)}
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["metrics.json"]


def test_the_files_of_a_report(results, tmp_path):
    annotations, predictions = results
    result, analysis, folder = evaluate_from_config(
        settings(annotations=str(annotations), predictions=str(predictions), report=True, resamples=20)
    )
    assert sorted(p.name for p in folder.iterdir()) == [
        "classes.csv",
        "images.csv",
        "metrics.json",
        "plots",
        "report.html",
    ]
    assert {p.stem for p in (folder / "plots").iterdir()} == {
        "errors",
        "precision_recall",
        "ap_by_iou",
        "recall_by_size",
        "calibration",
        "confusion",
    }
    with open(folder / "classes.csv", newline="") as file:
        cat, dog = csv.DictReader(file)
    assert (cat["class"], dog["class"]) == ("cat", "dog")
    assert (cat["category_id"], cat["boxes"], cat["detections"], cat["threshold"]) == ("3", "1", "1", "0.9")
    assert float(cat["AP"]) == result.per_class[0].AP
    assert (dog["AP"], dog["threshold"], dog["missed"]) == ("0.0", "", "1")
    with open(folder / "images.csv", newline="") as file:
        rows = {row["image_id"]: row for row in csv.DictReader(file)}
    assert (rows["12"]["boxes"], rows["12"]["found"], rows["5"]["not_found"]) == ("1", "1", "1")
    content = json.loads((folder / "metrics.json").read_text())["analysis"]
    assert content["resamples"] == 20
    low, high = content["intervals"]["AP"]
    assert low <= result.metrics["AP"] <= high
    assert content["intervals"]["APs"] == [None, None]
    assert content["errors"]["count"]["missed"] == 1
    assert content["confusion"]["true_rows_predicted_columns"] == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert analysis.metrics["AP"].value == result.metrics["AP"]
    assert "95 % interval" in result.table()


def test_no_older_result_stays_beside_a_new_one_that_it_contradicts(checkpoint, results, tmp_path):
    """A report that is not wanted this time, a sheet of another checkpoint; what somebody else put there stays."""
    annotations, predictions = results
    out = tmp_path / "out"
    files = lambda: sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    evaluate_from_config(settings(checkpoint=str(checkpoint), report=True, resamples=0, output_dir=str(out)))
    (out / "plots" / "notes.txt").touch()
    assert {"report.html", "classes.csv", "images.csv", "plots/errors.png", "predictions.png"} < set(files())
    evaluate_from_config(settings(checkpoint=str(checkpoint), sheet_images=0, output_dir=str(out)))
    assert files() == ["metrics.json", "plots/notes.txt", "predictions.json"]
    evaluate_from_config(
        settings(annotations=str(annotations), predictions=str(predictions), output_dir=str(out), overwrite=True)
    )
    assert files() == ["metrics.json", "plots/notes.txt"]


def test_the_file_that_is_scored_stays(results, tmp_path):
    """Detections that lie where their numbers go."""
    annotations, predictions = results
    kept = predictions.rename(tmp_path / "predictions.json")
    (tmp_path / "predictions.png").touch()
    evaluate_from_config(
        settings(annotations=str(annotations), predictions=str(kept), output_dir=str(tmp_path), overwrite=True)
    )
    assert kept.is_file()
    assert (tmp_path / "predictions.png").is_file()


def test_both_evaluators_and_no_resamples(results, tmp_path):
    annotations, predictions = results
    kept = {}
    for name in ("pycocotools", "faster"):
        config = settings(
            annotations=str(annotations),
            predictions=str(predictions),
            evaluator=name,
            resamples=0,
            report=True,
            max_detections=7,
            output_dir=str(tmp_path / name),
        )
        kept[name], _, folder = evaluate_from_config(config)
        meta = json.loads((folder / "metrics.json").read_text())["meta"]
        assert (meta["evaluator"], meta["max_detections"]) == (name, 7)
        assert kept[name].intervals == {}
        assert "interval" not in kept[name].table()
    assert kept["pycocotools"] == kept["faster"]


def test_an_image_folder_that_is_not_there(results):
    annotations, predictions = results
    with pytest.raises(DataError, match="images=nowhere: there is no such folder"):
        evaluate_from_config(settings(annotations=str(annotations), predictions=str(predictions), images="nowhere"))


def test_a_results_file_that_does_not_fit_its_annotations(results, write_json):
    annotations, _ = results
    path = write_json(
        "dt.json",
        [
            {"image_id": 12, "category_id": 3, "bbox": [1, 1, 4, 4], "score": 0.9},
            {"image_id": 13, "category_id": 3, "bbox": [1, 1, 4, 4], "score": 0.9},
            {"image_id": 12, "category_id": 4, "bbox": [1, 1, 4, 4], "score": 0.9},
        ],
    )
    with pytest.raises(DataError) as caught:
        evaluate_from_config(settings(annotations=str(annotations), predictions=str(path)))
    assert str(caught.value).splitlines()[1:3] == [
        "  entry 1: image 13 is not in the annotation file",
        "  entry 2: category 4 is not in the annotation file",
    ]


def test_relative_paths_start_at_the_working_directory(results, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    _, _, folder = evaluate_from_config(settings(annotations="gt.json", predictions="dt.json"))
    assert folder == Path("runs/evaluate/dt")
    assert (tmp_path / folder / "metrics.json").is_file()


# ----------------------------------------------------------------------------------- inputs and outputs
def test_results_of_something_else_are_not_overwritten(results, write_json, tmp_path):
    annotations, predictions = results
    config = settings(annotations=str(annotations), predictions=str(predictions))
    first, _, folder = evaluate_from_config(config)
    assert evaluate_from_config(config)[0] == first  # the same again is fine

    empty = write_json("empty.json", [])
    other = settings(annotations=str(annotations), predictions=str(empty), output_dir=str(folder))
    with pytest.raises(ConfigError, match=r"runs/evaluate/dt holds metrics\.json of something else; .* overwrite=true"):
        evaluate_from_config(other)
    assert json.loads((folder / "metrics.json").read_text())["AP"] == first.metrics["AP"]
    assert evaluate_from_config(replace(other, overwrite=True))[0].metrics["AP"] == 0.0

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.json").write_text("not ours")
    with pytest.raises(ConfigError, match="of something else"):
        evaluate_from_config(replace(config, output_dir=str(tmp_path / "run")))
    assert (tmp_path / "run" / "metrics.json").read_text() == "not ours"


def test_a_folder_that_cannot_be_made(results):
    annotations, predictions = results
    config = settings(annotations=str(annotations), predictions=str(predictions), output_dir=str(predictions / "sub"))
    with pytest.raises(ConfigError, match=r"dt\.json is not a folder that you may write to"):
        evaluate_from_config(config)


@pytest.mark.parametrize(
    "given",
    [
        ["checkpoint"],
        ["checkpoint", "annotations", "images"],
        ["annotations", "predictions"],
        ["annotations", "predictions", "images"],
    ],
)
def test_the_two_usages(given):
    check_inputs(EvaluateConfig(**dict.fromkeys(given, "x")))


@pytest.mark.parametrize(
    "given",
    [
        [],
        ["annotations"],
        ["predictions"],
        ["images"],
        ["annotations", "images"],
        ["checkpoint", "annotations"],
        ["checkpoint", "images"],
        ["checkpoint", "predictions"],
        ["checkpoint", "annotations", "predictions"],
        ["checkpoint", "annotations", "predictions", "images"],
    ],
)
def test_other_combinations_say_what_to_give(given):
    with pytest.raises(ConfigError) as caught:
        check_inputs(EvaluateConfig(**dict.fromkeys(given, "x")))
    message = str(caught.value)
    assert "give checkpoint=RUN/checkpoints/best.ckpt" in message
    assert "annotations=GT.json predictions=DETECTIONS.json" in message
    assert (f"from the keys {', '.join(given)}:" if given else "there is nothing to evaluate:") in message


def test_the_yaml_file_is_the_schema_with_a_comment_on_every_key():
    path = Path(__file__).resolve().parents[3] / "configs" / "evaluate.yaml"
    loaded = OmegaConf.to_container(OmegaConf.load(path))
    values = {key: value for key, value in loaded.items() if key not in ("defaults", "hydra")}
    assert values == to_dict(EvaluateConfig())
    for line in path.read_text().splitlines():
        if line.split(":")[0] in to_dict(EvaluateConfig()):
            assert len(line.split("  # ", 1)[1]) > 10, line

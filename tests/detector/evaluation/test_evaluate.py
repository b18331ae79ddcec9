"""A results file is scored: what is written where, and which inputs are refused."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from evaluating import settings
from omegaconf import OmegaConf

from detector.config.defaults import default
from detector.config.schema import EvaluateConfig, to_dict
from detector.evaluation.detections import Detections
from detector.evaluation.evaluate import check_inputs, evaluate_files, evaluate_from_config
from detector.evaluation.metrics import METRIC_NAMES
from detector.evaluation.scoring import evaluate
from detector.exceptions import ConfigError, DataError

pytestmark = pytest.mark.usefixtures("elsewhere")


def test_a_results_file(results, tmp_path):
    annotations, predictions = results
    found = evaluate_files(
        settings(annotations=str(annotations), predictions=str(predictions), output_dir=str(tmp_path / "out"))
    )
    result = found.result
    assert (found.diagnosis, found.folder) == (None, tmp_path / "out")
    assert result.metrics == evaluate(annotations, Detections.from_json(predictions)).metrics
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {name: content[name] for name in METRIC_NAMES} == result.metrics
    assert content["meta"]["inputs"] == {"annotations": str(annotations), "predictions": str(predictions)}
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["metrics.json"]


def test_classes_left_out_by_name(results, tmp_path):
    annotations, predictions = results
    given = {"annotations": str(annotations), "predictions": str(predictions), "output_dir": str(tmp_path / "out")}
    evaluation = evaluate_files(settings(**given, drop_categories=["dog"]))
    assert [c.name for c in evaluation.result.per_class] == ["cat"]
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["meta"]["drop_categories"] == ["dog"]
    with pytest.raises(ConfigError, match=r"drop_categories: .*has no class 'dogs'; did you mean 'dog'\?"):
        evaluate_files(settings(**given, drop_categories=["dogs"]))


def test_the_files_of_a_report(results, tmp_path):
    annotations, predictions = results
    found = evaluate_from_config(
        settings(annotations=str(annotations), predictions=str(predictions), report=True, resamples=20)
    )
    result, folder = found.result, found.folder
    analysis = found.diagnosis
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
    for name in ("builtin", "pycocotools"):
        config = settings(
            annotations=str(annotations),
            predictions=str(predictions),
            evaluator=name,
            resamples=0,
            report=True,
            max_detections=7,
            output_dir=str(tmp_path / name),
        )
        found = evaluate_from_config(config)
        kept[name], folder = found.result, found.folder
        meta = json.loads((folder / "metrics.json").read_text())["meta"]
        assert (meta["evaluator"], meta["max_detections"]) == (name, 7)
        assert kept[name].intervals == {}
        assert "interval" not in kept[name].table()
    assert kept["pycocotools"] == kept["builtin"]


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
    folder = evaluate_from_config(settings(annotations="gt.json", predictions="dt.json")).folder
    assert folder == Path("runs/evaluate/dt")
    assert (tmp_path / folder / "metrics.json").is_file()


# ----------------------------------------------------------------------------------- inputs and outputs
def test_results_of_something_else_are_not_overwritten(results, write_json, tmp_path):
    annotations, predictions = results
    config = settings(annotations=str(annotations), predictions=str(predictions))
    found = evaluate_from_config(config)
    first, folder = found.result, found.folder
    assert evaluate_from_config(config).result == first  # the same again is fine

    empty = write_json("empty.json", [])
    other = settings(annotations=str(annotations), predictions=str(empty), output_dir=str(folder))
    with pytest.raises(ConfigError, match=r"runs/evaluate/dt holds metrics\.json of something else; .* overwrite=true"):
        evaluate_from_config(other)
    assert json.loads((folder / "metrics.json").read_text())["AP"] == first.metrics["AP"]
    assert evaluate_from_config(replace(other, overwrite=True)).metrics["AP"] == 0.0

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
    check_inputs(default(EvaluateConfig, **dict.fromkeys(given, "x")))


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
        check_inputs(default(EvaluateConfig, **dict.fromkeys(given, "x")))
    message = str(caught.value)
    assert "give checkpoint=RUN/checkpoints/best.ckpt" in message
    assert "annotations=GT.json predictions=DETECTIONS.json" in message
    assert (f"from the keys {', '.join(given)}:" if given else "there is nothing to evaluate:") in message


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (["checkpoint", "annotations"], "images= is missing;"),
        (["checkpoint", "images"], "annotations= is missing;"),
        (["predictions"], "annotations= is missing;"),
        (["annotations", "images"], "checkpoint= or predictions= is missing;"),
    ],
)
def test_the_key_that_is_missing_is_named(given, missing):
    with pytest.raises(ConfigError) as caught:
        check_inputs(default(EvaluateConfig, **dict.fromkeys(given, "x")))
    assert missing in str(caught.value)


def test_the_yaml_file_is_the_schema_with_a_comment_on_every_key():
    path = Path(__file__).resolve().parents[3] / "configs" / "evaluate.yaml"
    loaded = OmegaConf.to_container(OmegaConf.load(path))
    values = {key: value for key, value in loaded.items() if key not in ("defaults", "hydra")}
    assert values == to_dict(default(EvaluateConfig))
    for line in path.read_text().splitlines():
        if line.split(":")[0] in to_dict(default(EvaluateConfig)):
            assert len(line.split("  # ", 1)[1]) > 10, line

"""``scripts/compare.py`` as a user runs it."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from detector.config.commands import script
from detector.config.defaults import default
from detector.config.schema import Config, to_dict
from detector.evaluation.detections import Detections
from detector.evaluation.metrics import METRIC_NAMES
from detector.evaluation.scoring import evaluate
from detector.evaluation.stored_detections import find_stored


@pytest.fixture
def data(tmp_path):
    """``gt.json``, ``images/`` and the results files ``a.json`` and ``b.json`` of six images; b finds more."""
    (tmp_path / "images").mkdir()
    images, annotations, found = [], [], {"a": [], "b": []}
    for i in range(1, 7):
        pixels = np.random.default_rng(i).integers(0, 255, (80, 120, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": 120, "height": 80})
        for x, label in ((5, 1), (60, 2)):
            box = [x, 10, 50, 40]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": label,
                    "bbox": box,
                    "area": 2000,
                    "iscrowd": 0,
                }
            )
            for name, good in (("a", i < 5), ("b", i > 1)):
                bbox = box if good else [x, 40, 50, 40]
                found[name].append({"image_id": i, "category_id": label, "bbox": bbox, "score": 0.9 - 0.01 * i})
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "$a$"}, {"id": 2, "name": "[b]"}],
    }
    (tmp_path / "gt.json").write_text(json.dumps(content))
    for name, entries in found.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(entries))
    return tmp_path


def as_run(folder, name, data, **changes):
    """A folder as a training run leaves it."""
    run = folder / name
    run.mkdir(parents=True)
    (run / "predictions.json").write_text((data / f"{name[0]}.json").read_text())
    config = to_dict(default(Config))
    config["data"] |= {"name": "coco", "root": str(data), "val_annotations": "gt.json"}
    for key, value in changes.items():
        config["trainer"][key] = value
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "metrics.json").write_text(json.dumps({"AP": 0, "meta": {"seed": 0}}))
    return run


def test_two_results_files(call_script, data):
    code, out, err = call_script("compare", "a.json", "b.json", "annotations=gt.json", "images=images", "resamples=50")
    assert (code, err) == (0, "")
    assert "COCO box metrics" in out
    assert "b: 2 images better, 1 worse, 3 as before" in out
    assert "- 6 images are too few to resample" in out
    folder = Path("runs/compare/a-b")
    assert out.splitlines()[-1] == (
        f"Results are in {folder}: classes.csv, comparison.json, differences.png, images.csv, images.png, metrics.csv"
    )
    content = json.loads((folder / "comparison.json").read_text())
    for name, run in zip("ab", content["runs"], strict=True):
        expected = evaluate("gt.json", Detections.from_json(f"{name}.json")).metrics
        assert run["metrics"] == pytest.approx(expected)
        assert list(expected) == list(METRIC_NAMES)
    for name in ("differences.png", "images.png"):
        assert np.asarray(Image.open(folder / name)).std() > 0
    # Best thresholds: a's leaves its false detections in images 5 and 6 out, b's keeps those in image 1.
    rows = list(csv.DictReader((folder / "images.csv").open()))
    assert [(row["file_name"], row["net"]) for row in rows] == [
        ("1.png", "-4"),
        ("2.png", "0"),
        ("3.png", "0"),
        ("4.png", "0"),
        ("5.png", "2"),
        ("6.png", "2"),
    ]
    # Again in place, but not over something else.
    assert call_script("compare", "a.json", "b.json", "annotations=gt.json", "resamples=0", "sheet_images=0")[0] == 0
    assert not (folder / "images.png").exists()
    code, _, err = call_script("compare", "b.json", "a.json", "annotations=gt.json", f"output_dir={folder}")
    assert (code, "of something else" in err) == (2, True)


def test_run_folders_know_their_data(call_script, data):
    as_run(data / "seed=3", "a1", data)
    as_run(data / "seed=3", "b1", data)
    code, out, err = call_script("compare", "seed=3/a1", "seed=3/b1", "resamples=10")
    assert (code, err) == (0, "")
    assert (data / "runs/compare/a1-b1/images.png").is_file()
    assert "b1: 2 images better, 1 worse" in out


def test_runs_that_were_evaluated_on_the_first_images(call_script, data):
    runs = [as_run(data / "runs", "a1", data), as_run(data / "runs", "b1", data, limit_eval_images=4)]
    code, out, _ = call_script("compare", *runs, "resamples=0")
    assert code == 0
    assert "Compared on the first 4 images of the file" in out.replace("\n", " ")
    assert "b1: 0 images better, 1 worse, 3 as before" in out


def test_folders_of_evaluations(call_script, data):
    for name in "ab":
        assert call_script("evaluate", "annotations=gt.json", f"predictions={name}.json", "report=false")[0] == 0
    code, out, _ = call_script("compare", "runs/evaluate/a", "runs/evaluate/b", "resamples=0", "output_dir=out")
    assert code == 0
    assert "b: 2 images better" in out


def test_classes_that_a_run_was_trained_without_are_not_compared(call_script, data):
    """Nor those that are named; the detections of them do not count."""
    one, other = (as_run(data / "runs", name, data) for name in ("a1", "b1"))
    config = yaml.safe_load((one / "config.yaml").read_text())
    config["data"]["drop_categories"] = ["[b]"]
    (one / "config.yaml").write_text(yaml.safe_dump(config))
    code, _, err = call_script("compare", one, other, "resamples=0", "output_dir=out")
    assert (code, err) == (0, "")
    content = json.loads((data / "out" / "comparison.json").read_text())
    assert any("class [b] with 6 annotations" in note for note in content["notes"])
    classes = list(csv.DictReader((data / "out" / "classes.csv").open()))
    assert {row["class"] for row in classes} == {"$a$"}
    arguments = ("a.json", "b.json", "annotations=gt.json", "resamples=0", "output_dir=named")
    code, _, err = call_script("compare", *arguments, "drop_categories=['$b$']")
    assert code == 2
    assert "drop_categories: gt.json has no class '$b$'; did you mean" in err


def test_a_run_is_compared_as_it_was_trained_on_other_annotations_too(call_script, data):
    """What it was trained without and how many detections it gives do not depend on where its data are."""
    run = as_run(data / "runs", "a1", data)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"] |= {"drop_categories": ["[b]"], "root": str(data / "gone")}
    config["model"]["head"]["detections_per_image"] = 300
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    code, _, err = call_script("compare", run, "b.json", "annotations=gt.json", "resamples=0", "output_dir=out")
    assert (code, err) == (0, "")
    assert json.loads((data / "out" / "comparison.json").read_text())["meta"]["max_detections"] == 300
    assert {row["class"] for row in csv.DictReader((data / "out" / "classes.csv").open())} == {"$a$"}


@pytest.mark.parametrize(
    ("change", "count"),
    [
        ({1: {"file_name": "other/8.png"}}, 1),
        ({1: {"width": 121}, 2: {"file_name": "1.png"}, 3: {"height": 9}}, 3),
        ({i: {"file_name": f"x{i}.png"} for i in range(1, 7)}, 6),
        (
            {1: {"file_name": "sub/1.jpg"}, 2: {"width": None}},
            0,
        ),  # another folder or ending, or no size: no other image
    ],
)
def test_detections_of_other_images_with_the_same_ids(call_script, data, change, count):
    run, other = as_run(data / "runs", "a1", data), json.loads((data / "gt.json").read_text())
    for entry in other["images"]:
        entry |= change.get(entry["id"], {})
    (data / "other.json").write_text(json.dumps(other))
    predictions = f"predictions={run / 'predictions.json'}"
    calls = [
        ("compare", run, "b.json", "resamples=0", "sheet_images=0"),
        ("evaluate", predictions, "report=false", "overwrite=true"),
    ]
    for call in calls:
        code, out, err = call_script(*call, "annotations=other.json")
        said = " ".join((out + err).split())
        assert code == (2 if count > 3 else 0)
        assert ("with ids of that file are others" in said) == bool(count)
        if count:
            assert f"{count} image" in said
            assert f"python {script('evaluate')} checkpoint=RUN" in said or count <= 3


def test_the_built_in_data_set_is_not_drawn_for_a_remark(call_script, data):
    run = as_run(data / "runs", "a1", data)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"] |= {"name": "shapes", "root": str(data / "drawn")}
    config["data"]["shapes"] |= {"train_images": 1, "val_images": 2, "image_size": 64}
    config["data"]["shapes"] |= {"min_object": 8, "max_object": 24}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    predictions = f"predictions={run / 'predictions.json'}"
    for call in (("compare", run, "b.json", "resamples=0"), ("evaluate", predictions, "report=false")):
        assert call_script(*call, "annotations=gt.json")[0] == 0
        assert not (data / "drawn").exists()


def test_pictures_are_as_bright_as_in_training(call_script, data, monkeypatch):
    """12 bits in files of 16: a value of 4095 is white."""
    for i in range(1, 7):
        Image.fromarray(np.full((80, 120), 4095, dtype=np.uint16)).save(data / "images" / f"{i}.png")
    run = as_run(data / "runs", "a1", data)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["white"] = 4095
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    drawn = []
    monkeypatch.setattr(
        "detector.evaluation.compare.draw_changes", lambda _, chosen, panels, out: drawn.extend(panels.values())
    )
    arguments = ("annotations=gt.json", f"images={data / 'images'}", "resamples=0")
    assert call_script("compare", "b.json", run, *arguments)[0] == 0
    assert drawn
    assert all(float(panel.image.min()) == 1 for panel in drawn)


def test_names_differ(data):
    for folder in ("x", "y"):
        (data / folder / "last").mkdir(parents=True)
        (data / folder / "last" / "predictions.json").write_text("[]")
    names = lambda *paths: [s.name for s in find_stored([str(data / p) for p in paths], locate=False)]
    assert names("x/last", "y/last", "a.json") == ["x/last", "y/last", "a"]
    assert names("a.json", "a.json", "b.json") == ["a", "a (2)", "b"]
    assert names("x/last", "x/last/predictions.json") == ["last", "last (2)"]
    (data / "y" / "a.json").write_text("[]")
    assert names("a.json", "y/a.json") == [f"{data.name}/a", "y/a"]


def test_a_run_with_itself(call_script, data):
    """In a folder whose name is markup to rich and has a dollar sign for matplotlib."""
    run = as_run(data / "runs", "a[b]$x^ c", data)
    code, out, err = call_script("compare", run, run, "resamples=10")
    assert (code, err) == (0, "")
    assert "a[b]$x^ c (2): 0 images better, 0 worse, 6 as before" in out
    assert "a[b]$x^ c (2) has the very detections of a[b]$x^ c" in " ".join(out.split())
    content = json.loads((data / "runs/compare/a-b-x-c-a-b-x-c-2/comparison.json").read_text())
    assert [found["name"] for found in content["runs"]] == ["a[b]$x^ c", "a[b]$x^ c (2)"]
    assert {found["difference"] for found in content["differences"][0]["metrics"].values()} == {0, None}


def test_long_names_make_a_folder(call_script, data):
    first, second = (as_run(data / "runs", name * 120, data) for name in "ab")
    assert call_script("compare", first, second, "resamples=0", "sheet_images=0")[0] == 0
    assert (data / "runs/compare" / ("a" * 80) / "differences.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give two or more runs to compare"),
        (["a.json"], "give two or more runs to compare"),
        (["a.json", "none.json", "annotations=gt.json"], "none.json: there is no such folder or file"),
        (["a.json", "b.json"], "none of the runs says what it was evaluated on; give annotations=GT.json"),
        (["a.json", "images", "annotations=gt.json"], "images: there are no detections in this folder"),
        (["a.json", "best.ckpt", "annotations=gt.json"], "run python -m detector evaluate checkpoint=best.ckpt first"),
        (["a.json", "gt.json", "annotations=gt.json"], "are the two files swapped?"),
        (["a.json", "b.json", "annotations=none.json"], "none.json: there is no such file"),
        (["a.json", "bad.json", "annotations=gt.json"], "image 99 is not in the annotation file"),
        (["a.json", "empty.json", "annotations=gt.json"], "empty.json: the file is empty"),
        (["a.json", "b.json", "annotations=gt.json", "images=none"], "images=none: there is no such folder"),
        (["a.json", "b.json", "annotation=gt.json"], "unknown key 'annotation'; did you mean 'annotations'?"),
        (["runs=a.json", "annotations=gt.json"], "runs=a.json: must be a list"),
    ],
)
def test_mistakes_are_one_message(call_script, data, arguments, message):
    (data / "best.ckpt").touch()
    (data / "empty.json").touch()
    (data / "bad.json").write_text('[{"image_id": 99, "category_id": 1, "bbox": [1, 1, 5, 5], "score": 0.5}]')
    code, out, err = call_script("compare", *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err


def test_runs_on_different_data(call_script, data):
    first, second = (as_run(data / "runs", name, data) for name in ("a1", "b1"))
    content = json.loads((data / "gt.json").read_text())
    content["annotations"].pop()
    (data / "other.json").write_text(json.dumps(content))
    config = yaml.safe_load((second / "config.yaml").read_text())
    config["data"]["val_annotations"] = "other.json"
    (second / "config.yaml").write_text(yaml.safe_dump(config))
    code, _, err = call_script("compare", first, second)
    assert code == 2
    assert "the runs were evaluated on different annotations" in err
    assert call_script("compare", first, second, "annotations=gt.json", "resamples=0")[0] == 0


def test_no_detections_and_no_images(call_script, data):
    (data / "none.json").write_text("[]")
    code, out, _ = call_script("compare", "none.json", "b.json", "annotations=gt.json", "resamples=20")
    assert code == 0
    assert "none: " not in out
    content = json.loads((data / "gt.json").read_text())
    for image in content["images"]:
        del image["file_name"], image["width"], image["height"]
    (data / "bare.json").write_text(json.dumps(content))
    assert call_script("compare", "a.json", "b.json", "annotations=bare.json", "output_dir=bare")[0] == 0
    content["annotations"] = []
    (data / "nothing.json").write_text(json.dumps(content))
    code, out, _ = call_script("compare", "a.json", "b.json", "annotations=nothing.json", "output_dir=nothing")
    assert code == 0
    assert "n/a" in out

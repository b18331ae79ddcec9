"""``scripts/evaluate.py`` as a user runs it."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from detector.evaluation.detections import Detections
from detector.evaluation.metrics import METRIC_NAMES
from detector.evaluation.scoring import evaluate

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "evaluate.py"


@pytest.fixture
def script(monkeypatch, tmp_path, capsys):
    """``script("key=value", ...)`` runs the script in ``tmp_path``; returns exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("evaluate_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "evaluate_script", module)
    spec.loader.exec_module(module)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        code = 0
        try:
            module.run(module.EvaluateConfig, "evaluate")(module.main)
        except SystemExit as exit:
            code = exit.code
        return code, *capsys.readouterr()

    return call


def test_a_results_file_by_relative_paths(script, write_json, truth_content, tmp_path):
    write_json("gt.json", truth_content)
    write_json("dt.json", [{"image_id": 12, "category_id": 3, "bbox": [10, 10, 40, 42], "score": 0.9}])
    code, out, err = script("annotations=gt.json", "predictions=dt.json")
    assert (code, err) == (0, "")
    assert "COCO box metrics" in out
    assert "Errors at IoU 0.5 (TIDE)" in out
    assert "Missed objects cost" in out
    assert out.splitlines()[-1] == (
        "Results are in runs/evaluate/dt: classes.csv, images.csv, metrics.json, plots, report.html"
    )
    content = json.loads((tmp_path / "runs/evaluate/dt/metrics.json").read_text())
    expected = evaluate("gt.json", Detections.from_json("dt.json")).metrics
    assert {name: content[name] for name in METRIC_NAMES} == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dt.json", "gt.json", "runs"]


def test_a_home_folder_in_a_path(script, write_json, truth_content, tmp_path, monkeypatch):
    """A shell that leaves the ~ alone; Hydra wants it quoted."""
    monkeypatch.setenv("HOME", str(tmp_path))
    write_json("gt.json", truth_content)
    write_json("dt.json", [])
    assert script("annotations='~/gt.json'", "predictions='~/dt.json'", "report=false")[0] == 0
    assert Path("runs/evaluate/dt/metrics.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is nothing to evaluate: give checkpoint=RUN/checkpoints/best.ckpt"),
        (["annotations=gt.json"], "cannot tell what to evaluate from the keys annotations:"),
        (["annotations=gt.json", "predictions=none.json"], "none.json: there is no such file"),
        (["annotations=none.json", "predictions=bad.json"], "none.json: there is no such file"),
        (["annotations=gt.json", "predictions=bad.json"], 'entry 0: image_id is "12", not a whole number'),
        (["annotations=gt.json", "predictions=gt.json"], "are the two files swapped?"),
        (["checkpoint=none.ckpt"], "none.ckpt: there is no such checkpoint"),
        (["checkpoint=bad.json"], "bad.json"),
        (["prediction=bad.json"], "unknown key 'prediction'; did you mean 'predictions'?"),
    ],
)
def test_mistakes_are_one_message(script, write_json, truth_content, arguments, message):
    write_json("gt.json", truth_content)
    write_json("bad.json", [{"image_id": "12", "category_id": 3, "bbox": [10, 10, 40, 42], "score": 0.9}])
    code, out, err = script(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err

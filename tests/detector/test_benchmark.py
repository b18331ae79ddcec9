import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from detector.inference.benchmark import cuda_suite
from detector.inference.benchmark.timing import Bench
from detector.inference.benchmark.workloads import Scene

ROOT = Path(__file__).resolve().parents[2]


def test_the_floor_by_hand():
    maps = {"0": torch.zeros(1, 2, 800 // 32, 1216 // 32)}
    # From 4 to 15.5 on the map: 14 samples a bin row 0.82 apart, the first at 4.41 and the last at 15.09, so that
    # rows 4..16 are touched, and columns alike.
    boxes = [torch.tensor([[128.0, 128, 128 + 12 * 32 - 16, 128 + 12 * 32 - 16]])]
    touched, output = 13 * 13, 49
    expected = (touched + output) * 2 * 4 / 1e9 * 1e3
    scene = Scene((800, 1216), 1)
    assert scene.floor(maps, boxes, 1e9) == pytest.approx(expected)
    backward = (output + 25 * 38) * 2 * 4 / 1e9 * 1e3
    assert scene.floor(maps, boxes, 1e9, forward=False, backward=True) == pytest.approx(backward)
    assert scene.floor(maps, boxes, 1e9, backward=True) == pytest.approx(expected + backward)


def test_proposals_are_boxes_in_the_image():
    boxes = torch.cat(Scene().proposals(500))
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (boxes[:, 2:] <= torch.tensor([1216.0, 800.0]) + 1e-3).all()


@pytest.mark.slow
def test_the_workloads_of_a_gpu_run(monkeypatch):
    """All of them on the CPU, which takes their calls as well."""
    bench = Bench(torch.device("cpu"), 1, True, 1e9)
    rows = [case(bench) for case in cuda_suite.cases(bench)]
    assert all(row.ours > 0 and row.peer > 0 for row in rows)
    assert cuda_suite.DETERMINISTIC in {row.peer_name for row in rows}
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_suite_of_one_is_refused():
    command = [sys.executable, "scripts/benchmark.py", "device=cuda"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "device=cuda" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_script_measures_and_writes(tmp_path, device):
    command = [sys.executable, "scripts/benchmark.py", "suite=roi_ops", f"device={device}", "quick=true",
               f"output_dir={tmp_path}"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / f"roi_ops_{device}.json").read_text())
    assert all(row["ours"] > 0 for row in report["rows"])
    for row in report["rows"]:
        if row["peer"] is not None:
            assert row["ratio"] == pytest.approx(row["peer"] / row["ours"])
    assert report["rows"][0]["workload"] in (tmp_path / f"roi_ops_{device}.md").read_text()

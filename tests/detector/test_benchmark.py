import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from detector.inference import benchmark

ROOT = Path(__file__).resolve().parents[2]


def test_the_floor_by_hand():
    maps = {"0": torch.zeros(1, 2, 800 // 32, 1216 // 32)}
    # From 4 to 15.5 on the map: 14 samples a bin row 0.82 apart, the first at 4.41 and the last at 15.09, so that
    # rows 4..16 are touched, and columns alike.
    boxes = [torch.tensor([[128.0, 128, 128 + 12 * 32 - 16, 128 + 12 * 32 - 16]])]
    touched, output = 13 * 13, 49
    expected = (touched + output) * 2 * 4 / 1e9 * 1e3
    assert benchmark.floor(maps, boxes, 1e9, both=False) == pytest.approx(expected)
    both = expected + (output + 25 * 38) * 2 * 4 / 1e9 * 1e3
    assert benchmark.floor(maps, boxes, 1e9, both=True) == pytest.approx(both)


def test_proposals_are_boxes_in_the_image():
    boxes = torch.cat(benchmark.proposals(500))
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (boxes[:, 2:] <= torch.tensor([1216.0, 800.0]) + 1e-3).all()


@pytest.mark.slow
def test_the_script_measures_and_writes(tmp_path):
    command = [sys.executable, "scripts/benchmark.py", "suite=roi_ops", "quick=true", f"output_dir={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "roi_ops_cpu.json").read_text())
    assert all(row["ours"] > 0 for row in report["rows"])
    for row in report["rows"]:
        if row["peer"] is not None:
            assert row["ratio"] == pytest.approx(row["peer"] / row["ours"])
    assert report["rows"][0]["workload"] in (tmp_path / "roi_ops_cpu.md").read_text()

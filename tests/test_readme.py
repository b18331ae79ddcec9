"""The Python samples of the README and of the pages, run as they stand there, those of a page one after the other."""

import re
from pathlib import Path

import pytest
import torch
import torchvision

ROOT = Path(__file__).resolve().parents[1]


def run_samples(page, least):
    text = (ROOT / page).read_text(encoding="utf-8")
    samples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(samples) >= least
    names: dict = {}
    for sample in samples:
        exec(compile(sample, page, "exec"), names)
    return names


@pytest.mark.slow
def test_samples_of_the_readme(capsys):
    names = run_samples("README.md", 2)
    assert "dict_keys(['boxes', 'labels', 'scores'])" in capsys.readouterr().out
    assert type(names["model"].roi_heads.box_roi_pool).__module__.startswith("roi_ops")


def test_sample_of_the_operators(capsys):
    pytest.importorskip("onnxscript")
    run_samples("docs/operators.md", 1)
    peer = torchvision.ops.RoIAlign(output_size=2, sampling_ratio=2, spatial_scale=5)
    expected = peer(torch.arange(64.0).reshape(1, 1, 8, 8), [torch.tensor([[0.0, 0.375, 0.875, 0.625]])])
    assert str(expected) in capsys.readouterr().out


def test_sample_of_the_drawn_operators(capsys):
    """Two samples per bin at 1.859 .. 4.766 (start 1.375, bins of 1.9375 cells): hat weights by hand, halved."""
    run_samples("docs/roi_operators.md", 1)
    rows = [[float(x) for x in re.findall(r"\d+\.\d+", row)] for row in
            re.search(r"\[(\[.*\])\]", capsys.readouterr().out, re.DOTALL)[1].split("],")]  # fmt: skip
    step = 62 / 16 / 2
    for p, row in enumerate(rows):
        expected = [0.0] * 8
        for j in range(2):
            y = 22 / 16 + p * step + (j + 0.5) * step / 2
            expected[int(y)] += (1 - (y - int(y))) / 2
            expected[int(y) + 1] += (y - int(y)) / 2
        assert row == pytest.approx(expected, abs=1e-4)

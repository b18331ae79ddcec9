"""The README's Python samples, run as they stand there, one after the other."""

import re
from pathlib import Path

import pytest
import torch
import torchvision

README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.mark.slow
def test_python_samples_run(capsys):
    samples = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(samples) >= 3
    names: dict = {}
    for sample in samples:
        exec(compile(sample, str(README), "exec"), names)
    out = capsys.readouterr().out
    peer = torchvision.ops.RoIAlign(output_size=2, sampling_ratio=2, spatial_scale=5)
    expected = peer(torch.arange(64.0).reshape(1, 1, 8, 8), [torch.tensor([[0.0, 0.375, 0.875, 0.625]])])
    assert str(expected) in out
    assert "dict_keys(['boxes', 'labels', 'scores'])" in out

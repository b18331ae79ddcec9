"""Files that weights are read from: what is no file of named tensors is told apart, and so are values of no use."""

import json
import warnings

import pytest
import torch
from torch import nn

from detector.exceptions import WeightsError
from detector.models.initial.kinds import read_initial
from detector.models.initial.tensors import read_tensors

HEADER = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
KINDS = {
    "HTML": b"\n<!DOCTYPE html><html><body>Sign in</body></html>",
    "JSON": b'{"images": []}',
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
    "safetensors": len(HEADER).to_bytes(8, "little") + HEADER + bytes(4),
}


def refusal(path):
    with warnings.catch_warnings(record=True) as raw, pytest.raises(WeightsError, match=r"cannot be read") as refused:
        read_tensors(path, str(path))
    assert raw == []
    return str(refused.value)


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_other_programs(tmp_path, kind):
    (tmp_path / "file.pth").write_bytes(KINDS[kind])
    said = refusal(tmp_path / "file.pth")
    assert [other for other in KINDS if other in said] == [kind]


@pytest.mark.parametrize("wrap", [lambda module: module, lambda module: {"model": module}])
def test_a_whole_module(tmp_path, wrap):
    torch.save(wrap(nn.Sequential(nn.Conv2d(1, 1, 1))), tmp_path / "file.pth")
    assert "state_dict(), FILE)" in refusal(tmp_path / "file.pth")


def test_other_objects_are_no_module(tmp_path):
    torch.save({"path": tmp_path}, tmp_path / "file.pth")
    assert "module" not in refusal(tmp_path / "file.pth")


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_program(tmp_path):
    torch.jit.script(nn.Conv2d(1, 1, 1)).save(tmp_path / "file.pth")
    assert "torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)" in refusal(tmp_path / "file.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("inside", [None, "state_dict"])
def test_values_that_are_not_finite(tmp_path, value, inside):
    state = {"good.weight": torch.ones(2), "conv.weight": torch.tensor([1.0, value]), "steps": torch.tensor(3)}
    torch.save({inside: state} if inside else state, tmp_path / "file.pth")
    with pytest.raises(WeightsError, match=r"file\.pth: 1 of its tensors .*: conv\.weight\."):
        read_initial(str(tmp_path / "file.pth"))
    assert read_tensors(tmp_path / "file.pth", "", finite=False)

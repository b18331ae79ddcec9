"""Comparing what two runs have left behind."""

import csv
from pathlib import Path

import torch


def assert_same(a, b, path=""):
    """Raise unless two nested values are of the same types and, to the bit, equal; ``path`` says where they are."""
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{path}/{i}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    else:
        assert a == b, path


def rows(folder):
    """The logged metrics without those that measure time and memory."""
    with open(Path(folder) / "metrics.csv", newline="") as file:
        measured = ("train/images_per_s", "train/data_wait", "train/memory_gb", "train/gpu_memory_gb")
        return [{k: v for k, v in row.items() if k not in measured} for row in csv.DictReader(file)]


def checkpoint_of(folder, name="last.ckpt"):
    """The content of a checkpoint of a run."""
    return torch.load(Path(folder) / "checkpoints" / name, weights_only=True)

"""Fixtures of all tests, and their order: fast ones first, slow ones last."""

from pathlib import Path

import pytest
import torch


def pytest_collection_modifyitems(items):
    gpu = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(gpu)
    items.sort(key=lambda item: "slow" in item.keywords)


@pytest.fixture(scope="session")
def shared_dir():
    """The folder of real data and weights beside the project, which users do not have."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data" / "bccd").is_dir():
        pytest.skip(f"no shared data at {folder}")
    return folder

"""Fixtures of all tests, and their order: fast ones first, slow ones last."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

# Examples are not timed: a busy machine is no failure.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


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

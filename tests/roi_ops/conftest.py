"""Every test that takes ``device`` runs once for each backend, on the device that backend serves."""

import pytest
import torch

from roi_ops import backends

BACKENDS = [
    "reference",
    "cpu",
    pytest.param("cuda", marks=pytest.mark.gpu),
]


@pytest.fixture(params=BACKENDS)
def device(request):
    reason = backends.why_not(request.param)
    if reason is not None:
        pytest.skip(f"backend {request.param}: {reason}")
    with backends.use_backend(request.param):
        yield torch.device("cuda" if request.param == "cuda" else "cpu")

"""Fixtures that run a test once for each backend, where it works.

``device``: the public operators, on the device that the backend serves. ``kernels``: its functions, called as such.
The CUDA backend is there twice: its source on the emulator, which needs a C++ compiler, and on the GPU.
"""

import pytest
import torch
from cuda_emulator.build import compiler
from cuda_emulator.emulated import operators
from kernel_problems import BACKENDS, EMULATOR

from roi_ops import backends, cuda

GPU = pytest.param("cuda", marks=pytest.mark.gpu)


def skip_without(backend):
    """Skip the test if the backend does not work here."""
    if backend == EMULATOR:
        if compiler() is None:
            pytest.skip("no C++ compiler to build the emulator with")
        return
    reason = backends.why_not(backend)
    if reason is not None:
        pytest.skip(f"backend {backend}: {reason}")


@pytest.fixture(params=["reference", "cpu", EMULATOR, GPU])
def device(request, monkeypatch):
    skip_without(request.param)
    if request.param == EMULATOR:
        monkeypatch.setattr(cuda, "_operators", operators)
        monkeypatch.setattr(backends, "select", lambda device_type: cuda)
        yield torch.device("cpu")
        return
    with backends.use_backend(request.param):
        yield torch.device("cuda" if request.param == "cuda" else "cpu")


@pytest.fixture(params=["cpu", EMULATOR, GPU], scope="session")
def kernels(request):
    skip_without(request.param)
    return BACKENDS[request.param]()


@pytest.fixture(params=[EMULATOR, GPU], scope="session")
def cuda_kernels(request):
    skip_without(request.param)
    return BACKENDS[request.param]()

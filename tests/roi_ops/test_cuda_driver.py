"""What the driver is asked for, by a driver that only says so: tests/cuda_emulator/driver_stub.c."""

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from cuda_emulator.build import compiler
from cuda_emulator.host_time import build_stub, measure

from roi_ops.cuda import compiler as nvrtc
from roi_ops.cuda import driver, programs

pytest.importorskip("cuda.core")

# Two calls of one kernel, on "device 0" and its stream 0x55.
CALLS = """
import contextlib, ctypes, sys, types
ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)
import torch
torch.cuda.current_device = lambda: 0
torch.cuda.device = lambda index: contextlib.nullcontext()
torch.cuda.current_stream = lambda index: types.SimpleNamespace(cuda_stream=0x55)
torch.cuda.get_device_capability = lambda index: (9, 0)
from roi_ops.cuda.driver import Driver
from roi_ops.cuda.operators import Operators
operators, maps = Operators(Driver()), [torch.zeros(1, 8, 4, 4)]
print("map", hex(maps[0].data_ptr()), flush=True)
for _ in range(2):
    operators.linear_forward(maps, torch.zeros(5, 5), False, [1.0], "align", 7, 7, 2, 0, 0, 224.0, 4.0)
"""


@pytest.fixture(scope="module")
def stub(tmp_path_factory):
    if compiler() is None or sys.platform != "linux":
        pytest.skip("no C compiler for the stub of a driver")
    return build_stub(tmp_path_factory.mktemp("driver"), compiler())


def calls(stub, cache):
    environment = {**os.environ, nvrtc.VARIABLE: str(cache), "LD_LIBRARY_PATH": str(stub.parent)}
    return subprocess.run([sys.executable, "-c", CALLS, str(stub)], capture_output=True, text=True, env=environment,
                          check=False, timeout=300)  # fmt: skip


def test_a_kernel_is_loaded_once_and_launched_on_the_current_stream(stub, tmp_path, monkeypatch):
    monkeypatch.setenv(nvrtc.VARIABLE, str(tmp_path))
    kernel = programs.linear_forward(torch.float32, 2)
    nvrtc.compiled(kernel, "sm_90")
    done = calls(stub, tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    address = lines[0].split()[1]
    loaded = ["capture mode 2", "module", f"function {kernel.name} of 0x800", "capture mode 0"]
    assert lines[1:6] == ["context 0x700", *loaded]
    assert len(lines) == 8
    for line in lines[6:]:
        shape = r"grid 5 1 1 block \d+ 1 1 shared \d+"
        assert re.fullmatch(rf"launch 0x900 {shape} stream 0x55 extra 0 map {address}", line)


def test_code_that_the_driver_refuses_is_a_compile_error(stub, tmp_path, monkeypatch):
    monkeypatch.setenv(nvrtc.VARIABLE, str(tmp_path))
    monkeypatch.setattr(nvrtc, "compile_kernel", lambda kernel, arch: (b"no cubin", ""))
    nvrtc.compiled(programs.linear_forward(torch.float32, 2), "sm_90")
    done = calls(stub, tmp_path)
    assert "CompileError: linear_forward_f32_planar: the driver does not take what was compiled" in done.stderr
    assert "CUDA_ERROR_INVALID_IMAGE" in done.stderr


@pytest.mark.parametrize(("status", "is_lasting"), [("INVALID_IMAGE", True), ("OUT_OF_MEMORY", False)])
def test_code_that_finds_no_memory_is_loaded_again(monkeypatch, status, is_lasting):
    bindings = pytest.importorskip("cuda.bindings.driver")
    loaded = lambda code: (getattr(bindings.CUresult, f"CUDA_ERROR_{status}"), None)
    stub = SimpleNamespace(cuModuleLoadData=loaded, CUstreamCaptureMode=bindings.CUstreamCaptureMode,
                           cuThreadExchangeStreamCaptureMode=lambda mode: (bindings.CUresult(0), mode))  # fmt: skip
    monkeypatch.setattr(driver, "_bindings", lambda: stub)
    monkeypatch.setattr(driver, "compiled", lambda kernel, arch: b"")
    monkeypatch.setattr(driver, "architecture", lambda index: "sm_90")
    with pytest.raises(nvrtc.CompileError, match=status) as caught:
        driver.Driver()._load(programs.sort_boxes(), 0)
    assert caught.value.is_lasting == is_lasting


def test_host_time_is_measured_without_a_gpu(stub):
    times = measure(compiler(), calls=3, runs=1)
    assert set(times) == {"forward", "forward_for_backward", "forward_backward", "backend_forward",
                          "backend_forward_backward"}  # fmt: skip
    assert all(0 < microseconds < 1e6 for microseconds in times.values())

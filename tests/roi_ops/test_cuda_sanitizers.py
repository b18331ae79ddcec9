"""The CUDA source under sanitizers, run by the emulator; and proof that these sanitizers see what they should."""

import signal

import pytest
from cuda_emulator.build import compiler
from cuda_emulator.emulated import BUILDS, FOUND, fiber_run, runtime, sanitized_run

from roi_ops.cuda.programs import device_code

pytestmark = pytest.mark.slow


@pytest.fixture(params=["address", "thread"])
def sanitizer(request):
    if runtime(request.param) is None:
        pytest.skip(f"the compiler has no runtime of the {request.param} sanitizer")
    return request.param


def planted(file, good, bad):
    """The device code with the only ``good`` in a file replaced."""
    code = device_code()
    assert code[file].count(good) == 1, f"{file} has changed: plant the fault elsewhere"
    return {**code, file: code[file].replace(good, bad)}


def test_the_source_is_clean(sanitizer):
    run = sanitized_run(sanitizer, BUILDS)
    assert run.returncode == 0, run.stderr[-4000:]
    assert run.stdout.strip() == "done"


def test_a_missing_barrier_is_found(tmp_path):
    if runtime("thread") is None:
        pytest.skip("the compiler has no runtime of the thread sanitizer")
    good = "    fill(t, 0, 0, false);\n    __syncthreads();\n"
    bad = "    fill(t, 0, 0, false);\n"
    run = sanitized_run("thread", tmp_path, ["align"], planted("tables.cuh", good, bad))
    assert run.returncode == FOUND, run.stderr[-4000:]
    assert "data race" in run.stderr


def test_an_index_out_of_bounds_is_found(tmp_path):
    if runtime("address") is None:
        pytest.skip("the compiler has no runtime of the address sanitizer")
    good, bad = "put(sum, tile, item.channel, item.bin, here);", "put(sum, tile, item.channel + 1, item.bin, here);"
    run = sanitized_run("address", tmp_path, ["align"], planted("linear_forward.cuh", good, bad))
    assert run.returncode == FOUND, run.stderr[-4000:]
    assert "heap-buffer-overflow" in run.stderr


def test_a_barrier_that_not_all_threads_reach_is_found(tmp_path):
    if compiler() is None:
        pytest.skip("no C++ compiler")
    good = "      if (!direct) {\n        __syncthreads();\n"
    bad = "      if (!direct) {\n        if (threadIdx.x > 0) __syncthreads();\n"
    run = fiber_run(tmp_path, ["align"], planted("linear_forward.cuh", good, bad))
    assert run.returncode == -signal.SIGABRT, run.stderr[-4000:]
    assert "divergent barrier" in run.stderr

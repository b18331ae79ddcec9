"""CPU time of one call of the CUDA backend, with no GPU: ``python -m cuda_emulator.host_time``.

``driver_stub.c`` stands for the driver, so a launch costs what Python and cuda.bindings cost and no kernel runs.
Tensors are small and on the CPU, so their allocation costs little. Prints JSON: microseconds by row.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path

STUB = Path(__file__).with_name("driver_stub.c")


def build_stub(folder: Path, compiler: str) -> Path:
    """Compile the stub of the driver into ``folder``, under the name by which the driver is loaded."""
    library = folder / "libcuda.so.1"
    flags = ["-x", "c", "-shared", "-fPIC", "-w", str(STUB), "-o", str(library), "-ldl", "-Wl,-soname,libcuda.so.1"]
    subprocess.run([compiler, *flags], check=True, timeout=120)
    return library


def measure(compiler: str, calls: int = 200, runs: int = 15) -> dict[str, float]:
    """Microseconds per call, median of several runs in a process of its own.

    Args:
        compiler: a C compiler.
        calls: in each run.
        runs: the median of these is given.

    Returns:
        ``forward`` (no gradient wanted), ``forward_for_backward`` (gradients of four feature maps wanted),
        ``forward_backward`` (and computed); and what the backend itself takes of the first and the last:
        ``backend_forward``, ``backend_forward_backward``.
    """
    root = Path(__file__).resolve().parents[2]
    with tempfile.TemporaryDirectory() as folder:
        library = build_stub(Path(folder), compiler)
        path = os.pathsep.join([str(root), str(root / "tests")])
        environment = {**os.environ, "LD_LIBRARY_PATH": folder, "PYTHONPATH": path, "DRIVER_STUB_QUIET": "1"}
        command = [sys.executable, "-m", "cuda_emulator.host_time", str(library), str(calls), str(runs)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def _rows(calls_per_run: int, runs: int) -> dict[str, float]:
    """The measurement, in a process that has loaded the stub."""
    import torch

    import roi_ops
    from roi_ops import backends, cuda
    from roi_ops.cuda import driver
    from roi_ops.maps import describe

    torch.set_num_threads(1)
    torch.cuda.current_device = lambda: 0
    torch.cuda.device = lambda index: contextlib.nullcontext()  # type: ignore[assignment,misc]
    torch.cuda.current_stream = lambda index: types.SimpleNamespace(cuda_stream=0x55)  # type: ignore[assignment]
    torch.cuda.get_device_capability = lambda index: (9, 0)
    driver.compiled = lambda kernel, arch: b"\x7fELF"  # the stub takes anything that begins like this
    backends.select = lambda device_type: cuda  # type: ignore[assignment]
    maps = [torch.zeros(2, 8, 64 >> i, 64 >> i).contiguous(memory_format=torch.channels_last) for i in range(4)]
    leaves = [m.clone().requires_grad_() for m in maps]
    boxes = torch.cat([torch.arange(512)[:, None] % 2, torch.tensor([[1.0, 2, 40, 50]]).expand(512, 4)], 1)
    scales = [0.25, 0.125, 0.0625, 0.03125]
    geometry = (scales, "align", 7, 7, 2, 2, 5, 224.0, 4.0)
    grad = torch.zeros(512, 8, 7, 7)
    calls: dict[str, Callable[[], object]] = {
        "forward": lambda: roi_ops.multiscale_roi_align(maps, boxes, 7, scales, 2),
        "forward_for_backward": lambda: roi_ops.multiscale_roi_align(leaves, boxes, 7, scales, 2),
        "forward_backward": lambda: torch.autograd.grad(
            roi_ops.multiscale_roi_align(leaves, boxes, 7, scales, 2), leaves, grad
        ),
        "backend_forward": lambda: cuda.linear_forward(maps, boxes, False, *geometry),
        "backend_forward_backward": lambda: (
            cuda.linear_forward(maps, boxes, False, *geometry),
            cuda.linear_backward_features(grad, boxes, *describe(maps), *geometry),
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            begin = time.process_time()
            for _ in range(calls_per_run):
                call()
            times[name].append((time.process_time() - begin) / calls_per_run * 1e6)
    return {name: round(statistics.median(t), 1) for name, t in times.items()}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)
        print(json.dumps(_rows(int(sys.argv[2]), int(sys.argv[3]))))
    else:
        print(json.dumps(measure(os.environ.get("CC", "cc")), indent=2))

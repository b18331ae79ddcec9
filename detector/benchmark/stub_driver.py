"""CPU time of one call of the CUDA backend, with a stub in place of NVIDIA's driver: no GPU, no kernel runs.

``tests/cuda_emulator/host_time.py`` measures it, so only a clone has it, on Linux with a C compiler.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import roi_ops
from detector.benchmark.timing import Row

TESTS = Path(roi_ops.__file__).resolve().parents[1] / "tests"
TIMEOUT = 600  # seconds after which the measurement has failed
ROWS = {
    "forward": ("forward", "backend_forward"),
    "forward + backward": ("forward_backward", "backend_forward_backward"),
}


def why_not() -> str | None:
    """Why it cannot be measured here, or None if it can."""
    if not (TESTS / "cuda_emulator" / "host_time.py").is_file():
        return "not in a clone of the project"
    if sys.platform != "linux" or shutil.which(os.environ.get("CC", "cc")) is None:
        return "no C compiler for Linux"
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None:
        return "cuda.bindings is not installed"
    return None


def rows() -> list[Row]:
    """A whole call, PyTorch's part included, beside what its backend takes alone: packing arguments, launching.

    Raises:
        RuntimeError: the measurement failed.
    """
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    command = [sys.executable, "-m", "cuda_emulator.host_time"]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    times = {name: microseconds / 1e3 for name, microseconds in json.loads(done.stdout).items()}
    return [
        Row("eager CUDA call, stub driver", f"{what}, CPU time", times[whole], times[part], "our backend alone")
        for what, (whole, part) in ROWS.items()
    ]

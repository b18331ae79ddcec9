"""The operators on the emulator, built once; and programs of it under sanitizers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from cuda_emulator.build import TIMEOUT, build, compiler
from cuda_emulator.launcher import Emulator
from roi_ops.cuda import programs
from roi_ops.cuda.operators import Operators
from roi_ops.geometry import LINEAR_KINDS

TESTS = Path(__file__).resolve().parents[1]
BUILDS = TESTS.parent / ".pytest_cache" / "cuda_emulator"

# What a sanitizer makes of the exit code of a process.
FOUND = 66
RUNTIMES = {"address": "libasan.so", "thread": "libtsan.so"}


@cache
def emulator() -> Emulator:
    """The launcher with every kernel; threads are fibers."""
    return Emulator(build(programs.every_kernel(), BUILDS, ("-O1", "-shared", "-fPIC", "-DEMULATOR_FIBERS")))


@cache
def operators() -> Operators:
    """The seven functions on CPU tensors."""
    return Operators(emulator())


def runtime(sanitizer: str) -> Path | None:
    """The sanitizer's runtime library, or None if the compiler has none."""
    cxx = compiler()
    if cxx is None:
        return None
    command = [cxx, f"-print-file-name={RUNTIMES[sanitizer]}"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    path = Path(run.stdout.strip())
    return path if path.is_absolute() else None


def sanitized_run(
    sanitizer: str, folder: Path, kinds: Sequence[str] = (), code: dict[str, str] | None = None
) -> subprocess.CompletedProcess:
    """Run the scenario under "address" (and undefined behaviour) or "thread".

    The exit code is ``FOUND`` if the sanitizer found something.
    """
    checks = "address,undefined,float-cast-overflow" if sanitizer == "address" else sanitizer
    flags = ("-O1", "-g1", "-shared", "-fPIC", f"-fsanitize={checks}", "-fno-sanitize-recover=all")
    library = build(_kernels(kinds), folder, flags, code=code)
    environment = {
        "LD_PRELOAD": str(runtime(sanitizer)),
        "ASAN_OPTIONS": f"detect_leaks=0:exitcode={FOUND}",
        "UBSAN_OPTIONS": f"exitcode={FOUND}",
        "TSAN_OPTIONS": f"ignore_noninstrumented_modules=1:halt_on_error=1:exitcode={FOUND}",
        "OMP_NUM_THREADS": "1",
    }
    return _scenario(library, kinds, environment)


def fiber_run(folder: Path, kinds: Sequence[str], code: dict[str, str]) -> subprocess.CompletedProcess:
    """Run the scenario on fibers, which say so and abort where threads would wait for each other for ever."""
    library = build(_kernels(kinds), folder, ("-O1", "-shared", "-fPIC", "-DEMULATOR_FIBERS"), code=code)
    return _scenario(library, kinds, {"OMP_NUM_THREADS": "1"})


def _kernels(kinds: Sequence[str]) -> list[programs.Kernel]:
    """Those of the scenario: every one of float32, and of float16 and float64 those for any strides. Of the linear
    ``kinds`` alone, which faults are planted in, those of float32: they are compiled in a quarter of the time."""
    if kinds and set(kinds) <= {*LINEAR_KINDS}:
        others = ("f64", "f16", "bf16", "max_", "pool_")
        return [k for k in programs.every_kernel() if not any(part in k.name for part in others)]
    return [k for k in programs.every_kernel()
            if "bf16" not in k.name and ("f32" in k.name or not k.name.endswith(("vector", "scalar")))]  # fmt: skip


def _scenario(library: Path, kinds: Sequence[str], variables: dict[str, str]) -> subprocess.CompletedProcess:
    environment = {**os.environ, **variables, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    command = [sys.executable, "-m", "cuda_emulator.scenario", str(library), *kinds]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT)

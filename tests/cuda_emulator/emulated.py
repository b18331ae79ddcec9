"""The operators on the emulator, built once; and programs of it under sanitizers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from cuda_emulator.build import build, compiler
from cuda_emulator.launcher import Emulator
from roi_ops.cuda import programs
from roi_ops.cuda.operators import Operators

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
    run = subprocess.run([cxx, f"-print-file-name={RUNTIMES[sanitizer]}"], capture_output=True, text=True, check=True)
    path = Path(run.stdout.strip())
    return path if path.is_absolute() else None


def sanitized_run(
    sanitizer: str, folder: Path, kinds: Sequence[str] = (), code: dict[str, str] | None = None
) -> subprocess.CompletedProcess:
    """Run the scenario with float32 kernels under "address" (and undefined behaviour) or "thread".

    The exit code is ``FOUND`` if the sanitizer found something.
    """
    checks = "address,undefined,float-cast-overflow" if sanitizer == "address" else sanitizer
    flags = ("-O1", "-g", "-shared", "-fPIC", f"-fsanitize={checks}", "-fno-sanitize-recover=all")
    kernels = [k for k in programs.every_kernel() if "f64" not in k.name and "f16" not in k.name]
    library = build(kernels, folder, flags, code=code)
    environment = {
        **os.environ,
        "LD_PRELOAD": str(runtime(sanitizer)),
        "ASAN_OPTIONS": f"detect_leaks=0:exitcode={FOUND}",
        "UBSAN_OPTIONS": f"exitcode={FOUND}",
        "TSAN_OPTIONS": f"ignore_noninstrumented_modules=1:halt_on_error=1:exitcode={FOUND}",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
    }
    command = [sys.executable, "-m", "cuda_emulator.scenario", str(library), *kinds]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

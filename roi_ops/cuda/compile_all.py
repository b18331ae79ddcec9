"""The compile matrix, which needs no GPU: ``python -m roi_ops.cuda.compile_all [--arch 75,90] [--dtype f32,bf16]``.

Compiles every kernel for every architecture, prints registers, stack and spills of each, and fails if one spills
registers to memory, takes more shared memory than every device has, or does not compile. The cache takes no part.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from roi_ops.cuda.compiler import CompileError, compile_kernel, compiler_version
from roi_ops.cuda.plan import SHARED_BUDGET
from roi_ops.cuda.programs import NAMES, Kernel, every_kernel

# Bytes of shared memory a block has on every device without being asked for.
SHARED_LIMIT = 48 << 10
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)


class Usage(NamedTuple):
    """What a kernel takes of the device; bytes but for the registers. ``shared``: on top of the launch's."""

    registers: int
    shared: int
    stack: int
    spills: int


def usage(kernel: Kernel, arch: str) -> Usage:
    """Compile a kernel and read the assembler's report.

    Raises:
        CompileError: it does not compile, or the report is not there.
    """
    _, log = compile_kernel(kernel, arch)
    registers = re.findall(r"Used (\d+) registers", log)
    # One line for the kernel, and one for each function in it that is not inlined.
    stack = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log)
    if not registers or not stack:
        raise CompileError(f"{kernel.name}: the compiler for {arch} reported no registers:\n{log}")
    frames, stores, loads = (sum(map(int, column)) for column in zip(*stack, strict=True))
    shared = max(map(int, re.findall(r"(\d+) bytes smem", log)), default=0)
    return Usage(max(map(int, registers)), shared, frames, stores + loads)


def main(arguments: list[str] | None = None) -> int:
    """Print the matrix; the exit code is 1 if a kernel spills, is too large or does not compile."""
    parser = argparse.ArgumentParser(prog="python -m roi_ops.cuda.compile_all", description=__doc__)
    parser.add_argument("--arch", default=",".join(map(str, ARCHITECTURES)), help="compute capabilities, as 75,90")
    parser.add_argument("--dtype", default=",".join(NAMES.values()), help="storage dtypes: f32,f64,f16,bf16")
    options = parser.parse_args(arguments)
    wanted = options.dtype.split(",")
    if not set(wanted) <= set(NAMES.values()):
        parser.error(f"--dtype {options.dtype}: known are {', '.join(NAMES.values())}")
    kernels = every_kernel(tuple(dtype for dtype, name in NAMES.items() if name in wanted))
    architectures = [f"sm_{number}" for number in options.arch.split(",")]
    begin, bad = time.monotonic(), []
    print(f"{compiler_version()}: {len(kernels)} kernels for {', '.join(architectures)}; registers (+ stack, spills)")

    def attempt(kernel: Kernel, arch: str) -> Usage | CompileError:
        try:
            return usage(kernel, arch)
        except CompileError as error:
            return error

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NVRTC works without Python's lock
        for kernel, row in [(k, [pool.submit(attempt, k, a) for a in architectures]) for k in kernels]:
            cells = []
            for arch, future in zip(architectures, row, strict=True):
                u = future.result()
                if isinstance(u, CompileError):
                    print(u, file=sys.stderr)
                    cells.append("error")
                    bad.append(f"{kernel.name} {arch}: does not compile")
                    continue
                cells.append(f"{u.registers}" + (f"+{u.stack}+{u.spills}" if u.stack or u.spills else ""))
                if u.spills:
                    bad.append(f"{kernel.name} {arch}: {u.spills} bytes of spills")
                if u.shared > SHARED_LIMIT - SHARED_BUDGET:
                    bad.append(f"{kernel.name} {arch}: {u.shared} bytes of shared memory beside the launch's")
            print(f"  {kernel.name:<36}" + "".join(f" {cell:>10}" for cell in cells), flush=True)
    print(f"{time.monotonic() - begin:.0f} s")
    for line in bad:
        print(line, file=sys.stderr)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())

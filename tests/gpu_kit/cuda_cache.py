"""Every CUDA kernel, compiled with line numbers into a cache that the machine of the kit finds its kernels in.

    python -m gpu_kit.cuda_cache FOLDER VERSION [LIBRARY]

A kernel's place in the cache depends on its source, the architecture and the version of NVRTC, not on the machine.
VERSION is the machine's NVRTC, as 13.0. LIBRARY is a libnvrtc of that version, to be used in place of the
environment's.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ARCHITECTURE = "sm_90"  # H100 and H200


def fill(folder: Path, version: str, names: Sequence[str] = ()) -> int:
    """Compile what is not in ``folder``, and remove cubins and logs that no kernel is found under any more.

    Args:
        folder: the cache; ROI_OPS_CACHE is set to it.
        version: of the NVRTC that the machine has.
        names: kernels; default all.

    Returns:
        How many kernels the cache holds.

    Raises:
        RuntimeError: this process has another NVRTC.
        roi_ops.cuda.CompileError: a kernel does not compile.
    """
    from roi_ops.cuda import compiler, programs

    if compiler.compiler_version() != f"nvrtc {version}":
        raise RuntimeError(f"kernels for NVRTC {version} are wanted, and {compiler.compiler_version()} is here")
    os.environ[compiler.VARIABLE] = str(folder)
    kernels = [kernel for kernel in programs.every_kernel() if not names or kernel.name in names]

    def put(kernel: programs.Kernel) -> None:
        if compiler.stored(kernel, ARCHITECTURE) is None:
            code, _ = compiler.compile_kernel(kernel, ARCHITECTURE, line_numbers=True)
            compiler.store(kernel, ARCHITECTURE, code)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NVRTC works without Python's lock
        list(pool.map(put, kernels))
    found = {compiler.cache_path(kernel, ARCHITECTURE) for kernel in kernels}
    for file in {*folder.glob("*.cubin"), *folder.glob("*.log")} - found:
        file.unlink()
    return len(found)


def count() -> tuple[int, int]:
    """How many kernels the cache has for the first GPU, and how many there are."""
    from roi_ops.cuda import compiler, programs
    from roi_ops.cuda.driver import architecture

    kernels, arch = programs.every_kernel(), architecture(0)
    return sum(compiler.stored(kernel, arch) is not None for kernel in kernels), len(kernels)


if __name__ == "__main__":
    if len(sys.argv) > 3:  # loaded before PyTorch loads its own, so that all of the process uses it
        ctypes.CDLL(sys.argv[3], mode=ctypes.RTLD_GLOBAL)
    print(fill(Path(sys.argv[1]), sys.argv[2]))

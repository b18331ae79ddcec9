"""Build the emulator: all kernels in one translation unit, compiled by g++ into a library or a program."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from roi_ops.cuda import programs

HEADER = Path(__file__).with_name("cuda_runtime_emulator.h")
# Fortified longjmp aborts on a jump to another stack, which is what fibers do; some distributions switch it on.
# Contraction off: the device code is compiled with --fmad=false. Aliasing off: 16-byte loads as on the device.
FLAGS = ("-std=c++17", "-ffp-contract=off", "-fno-strict-aliasing", "-pthread", "-Wall", "-Wno-unknown-pragmas",
         "-Wno-unused-function", "-U_FORTIFY_SOURCE")  # fmt: skip

# Seconds after which a compilation or a sanitized run is given up.
TIMEOUT = 900


def compiler() -> str | None:
    """The host compiler, or None."""
    return shutil.which(os.environ.get("CXX", "g++"))


def source(kernels: Sequence[programs.Kernel], extra: str = "") -> str:
    """The translation unit: every kernel, and functions to run one by its name."""
    files = dict.fromkeys(kernel.file for kernel in kernels)
    lines = ['#include "cuda_runtime_emulator.h"', *(f'#include "{file}"' for file in files)]
    lines += [kernel.entry for kernel in kernels]
    lines.append("static const std::map<std::string, void (*)(const void*)> kernels = {")
    for k in kernels:
        call = f"::{k.name}(*static_cast<const roi::{k.arguments}*>(a))"
        lines.append(f'  {{"{k.name}", [](const void* a) {{ {call}; }}}},')
    lines.append("};")
    lines.append(
        'extern "C" int emulator_run(const char* name, unsigned grid, unsigned block, size_t shared, const void* a) {\n'
        "  const auto found = kernels.find(name);\n"
        "  if (found == kernels.end()) return 1;\n"
        "  emulator::run(found->second, grid, block, shared, a);\n  return 0;\n}"
    )
    structs = ("Level", "Call", "Pooled", "Plan", "ForwardArguments", "PointArguments", "Bins", "Crowd",
               "BackwardArguments")  # fmt: skip
    lines.append(
        'extern "C" size_t emulator_sizeof(const char* name) {\n  const std::string n = name;\n'
        + "".join(f'  if (n == "{s}") return sizeof(roi::{s});\n' for s in structs)
        + "  return 0;\n}"
    )
    return "\n".join([*lines, extra, ""])


def build(
    kernels: Sequence[programs.Kernel],
    folder: Path,
    flags: Sequence[str] = ("-O2", "-shared", "-fPIC"),
    *,
    extra: str = "",
    code: dict[str, str] | None = None,
) -> Path:
    """Compile, unless the same was compiled into ``folder`` before.

    Args:
        kernels: which to compile.
        folder: where results are kept.
        flags: of the compiler.
        extra: more source, e.g. a ``main``.
        code: device code by file name, to plant faults in; default the package's.

    Returns:
        The library, or the program.
    """
    cxx = compiler()
    assert cxx is not None, "no host compiler"
    text = source(kernels, extra)
    files = {HEADER.name: HEADER.read_text(), **(code or programs.device_code())}
    key = hashlib.sha256(repr((text, sorted(files.items()), flags, FLAGS, cxx)).encode()).hexdigest()[:16]
    result = folder / f"emulator-{key}.so"
    if result.exists():
        return result
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        for name, content in files.items():
            Path(temporary, name).write_text(content)
        unit, made = Path(temporary, "emulator.cpp"), Path(temporary, "result")
        unit.write_text(text)
        command = [cxx, *FLAGS, *flags, f"-I{temporary}", str(unit), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr[:6000]}")
        made.replace(result)
    return result

"""`make gpu-kit`: make `.gpu/`, what a bare GPU machine without a network needs besides this tree.

    python -m gpu_kit.prepare [FOLDER]

``whl/``: the packages it lacks; ``cpu/``: the CPU kernels for its Python; ``cache/``: the CUDA kernels for its GPU.
To be made again after a change of roi_ops/cuda, roi_ops/cpu, roi_ops/include or the dependencies: what has not changed
is kept.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from gpu_kit import interpreter, wheels

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 64 << 20  # bytes that are easily carried to another machine
SOURCES = ("roi_ops/cpu/*.cpp", "roi_ops/cpu/*.h", "roi_ops/cpu/CMakeLists.txt", "roi_ops/include/*", "pyproject.toml")


def build_cpu_kernels(folder: Path, python: str) -> Path:
    """The library of the CPU kernels for the interpreter ``python``, built unless ``folder`` has one younger than its
    sources."""
    changed = max(file.stat().st_mtime for pattern in SOURCES for file in ROOT.glob(pattern))
    for library in folder.glob("_kernels*.so"):
        if library.stat().st_mtime > changed:
            return library
        library.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as built:
        command = [
            python,
            "-m",
            "pip",
            "--quiet",
            "--disable-pip-version-check",
            "wheel",
            "--no-deps",
            "-w",
            built,
            ".",
        ]
        subprocess.run(command, cwd=ROOT, check=True)
        (wheel,) = Path(built).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if Path(name).match("roi_ops/cpu/_kernels*.so")]
            if not names:
                raise RuntimeError(f"{python} built no CPU kernels: is there a C++ compiler?")
            library = folder / Path(names[0]).name
            library.write_bytes(archive.read(names[0]))
    return library


def fill_cuda_cache(folder: Path) -> int:
    """The CUDA kernels, with an NVRTC of the machine's version; returns how many."""
    folder.mkdir(parents=True, exist_ok=True)
    package = wheels.installed()["nvidia-cuda-nvrtc"]
    version = ".".join(package.split(".")[:2])
    with tempfile.TemporaryDirectory() as unpacked:
        library = [] if here() == version else [fetch_nvrtc(package, Path(unpacked))]
        command = [sys.executable, "-m", "gpu_kit.cuda_cache", str(folder), version, *library]
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, check=True
        )
    return int(done.stdout)


def here() -> str:
    """Version of this environment's NVRTC, as 13.0."""
    from roi_ops.cuda.compiler import compiler_version

    return compiler_version().removeprefix("nvrtc ")


def fetch_nvrtc(version: str, folder: Path) -> str:
    """Unpack the package of NVRTC into ``folder``; returns the library."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    package = f"nvidia-cuda-nvrtc=={version}"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder), package], check=True)
    (library,) = (file for file in folder.rglob("libnvrtc.so.*") if "alt" not in file.name)
    return str(library)


def main(folder: Path) -> int:
    """Make the kit; the exit code is 1 if it is too large."""
    names = [wheel.name for wheel in wheels.collect(folder / "whl")]
    print(f"wheels: {', '.join(names)}")
    version = wheels.installed()["python"]
    python = interpreter.find(version)
    if python is None:
        print(f"no CPU kernels: there is no Python {version} here, and the machine's reference backend is slower")
    else:
        print(f"CPU kernels: {build_cpu_kernels(folder / 'cpu', python).name}")
    print(f"CUDA kernels: {fill_cuda_cache(folder / 'cache')}")
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder}: {size / 2**20:.1f} MiB")
    if size > LIMIT:
        print(f"more than {LIMIT >> 20} MiB: too much to carry", file=sys.stderr)
    return int(size > LIMIT)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".gpu"))

"""Compile kernels with NVRTC, through NVIDIA's ``cuda.core``, and keep the results on disk.

A result is kept under the hash of everything it depends on: all device code, the options, the architecture and
the compiler's version. Files are written under another name and renamed, and carry a checksum: several processes
may fill one cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path

from roi_ops.cuda.programs import Kernel, device_code

VARIABLE = "ROI_OPS_CACHE"
# Changed when files of the cache mean something else than before.
FORMAT = 1
# cuda.core 1.2.2 cannot be imported by two threads at once: both fail, and so does every later import.
_IMPORT = threading.Lock()


class CompileError(RuntimeError):
    """A kernel cannot be compiled or loaded: NVRTC rejects it, or something that it takes is missing.

    Attributes:
        kernel, device: what was to be launched where; empty if nothing was.
        is_lasting: whether another try in this process would fail too; not so for a disk or a memory that is full.
    """

    def __init__(self, message: str, kernel: str = "", device: str = "", *, is_lasting: bool = True) -> None:
        super().__init__(message)
        self.kernel, self.device, self.is_lasting = kernel, device, is_lasting


def cache_folder() -> Path:
    """Where compiled kernels are kept: ``ROI_OPS_CACHE``, or ``roi_ops`` in the user's cache folder.

    A user without a home (a container's bare UID) has a folder of that number among the temporary files.
    """
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE])
    base = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    if base:
        return Path(base) / "roi_ops"
    try:
        home = Path.home()
    except RuntimeError:
        user = os.getuid() if hasattr(os, "getuid") else "user"
        return Path(tempfile.gettempdir()) / f"roi_ops-{user}"
    return home / ("AppData/Local" if sys.platform == "win32" else ".cache") / "roi_ops"


def compiled(kernel: Kernel, arch: str) -> bytes:
    """The cubin of a kernel for an architecture such as ``sm_90``, from the cache or compiled now.

    Raises:
        CompileError: it cannot be compiled.
    """
    code = stored(kernel, arch)
    if code is None:
        code, _ = compile_kernel(kernel, arch)
        store(kernel, arch, code)
    return code


def stored(kernel: Kernel, arch: str) -> bytes | None:
    """The cubin that the cache holds; None if it holds none, or a damaged one."""
    with contextlib.suppress(OSError):
        content = cache_path(kernel, arch).read_bytes()
        if len(content) > 32 and hashlib.sha256(content[32:]).digest() == content[:32]:
            return content[32:]
    return None


def store(kernel: Kernel, arch: str, code: bytes) -> None:
    """Put a cubin into the cache."""
    _write(cache_path(kernel, arch), hashlib.sha256(code).digest() + code)


def cache_path(kernel: Kernel, arch: str) -> Path:
    """The file of a kernel in the cache."""
    parts = [str(FORMAT), arch, compiler_version(), *_options(arch), kernel.source, _device_code_hash()]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return cache_folder() / f"{kernel.name}-{arch}-{key[:24]}.cubin"


def compile_kernel(kernel: Kernel, arch: str, *, line_numbers: bool = False) -> tuple[bytes, str]:
    """Compile, whatever the cache holds.

    Args:
        kernel: what to compile.
        arch: such as ``sm_90``.
        line_numbers: for profilers; they change nothing of the machine code.

    Returns:
        The cubin (for an architecture younger than the compiler, PTX of the youngest one it knows, which the
        driver translates), and the log with registers and spills.

    Raises:
        CompileError: with the compiler's log, which is kept in the cache folder too.
    """
    try:
        with _IMPORT:
            from cuda.core import Program, ProgramOptions
    except Exception as error:  # versions of NVIDIA's packages that do not fit raise more than ImportError
        raise CompileError(f"cuda.core cannot be imported: {error}") from error
    log = io.StringIO()
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="roi_ops-", ignore_cleanup_errors=True))
            for name, text in device_code().items():
                Path(folder, name).write_text(text)
        except OSError as error:
            message = f"the device code cannot be written to a temporary folder: {error}"
            raise CompileError(message, is_lasting=False) from error
        includes = [folder] + ([cuda_headers()] if kernel.header else [])
        target, kind = _target(arch)
        try:
            options = ProgramOptions(
                name=kernel.name, arch=target, std="c++17", fma=False, include_path=includes, ptxas_options=["-v"],
                lineinfo=line_numbers,
            )  # fmt: skip
            code = Program(kernel.source, "c++", options).compile(kind, logs=log).code
        except Exception as error:
            text = f"{error}\n{log.getvalue()}"
            path = cache_folder() / f"{kernel.name}-{arch}.log"
            _write(path, text.encode())
            message = f"{kernel.name} does not compile for {arch}; the log is {path}:\n{text[:2000]}"
            raise CompileError(message) from error
    return bytes(code), log.getvalue()


def cuda_headers() -> str:
    """Folder of ``cuda_fp16.h``: from the nvidia-cuda-runtime package that PyTorch brings, or a toolkit.

    Raises:
        CompileError: there is none.
    """
    try:
        from cuda import pathfinder

        folder = pathfinder.find_nvidia_header_directory("cudart")
    except Exception as error:
        raise CompileError(f"cuda_fp16.h was not found, because cuda.pathfinder failed: {error}") from error
    if folder is None:
        raise CompileError("cuda_fp16.h was not found: pip install nvidia-cuda-runtime, of PyTorch's CUDA version")
    return folder


@cache
def compiler_version() -> str:
    """NVRTC's version.

    Raises:
        CompileError: there is no NVRTC.
    """
    try:
        from cuda.bindings import nvrtc

        _, major, minor = nvrtc.nvrtcVersion()
    except Exception as error:
        raise CompileError(f"NVRTC cannot be loaded: {error}") from error
    return f"nvrtc {major}.{minor}"


@cache
def _target(arch: str) -> tuple[str, str]:
    """What NVRTC is asked for: the architecture's own code, or PTX if it does not know the architecture.

    Raises:
        CompileError: NVRTC does not say which it knows.
    """
    try:
        from cuda.bindings import nvrtc

        _, known = nvrtc.nvrtcGetSupportedArchs()
    except Exception as error:
        raise CompileError(f"NVRTC does not say which architectures it knows: {error}") from error
    number = int(arch.removeprefix("sm_"))
    if number in known or number < min(known):
        return arch, "cubin"
    return f"compute_{max(n for n in known if n < number)}", "ptx"


@cache
def _device_code_hash() -> str:
    return hashlib.sha256(repr(sorted(device_code().items())).encode()).hexdigest()


def _options(arch: str) -> list[str]:
    return [*_target(arch), "c++17", "fmad=false"]


def _write(path: Path, content: bytes) -> None:
    """Write a file at once, or not at all: a cache that cannot be written costs time, not results."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        try:
            with os.fdopen(handle, "wb") as f:
                f.write(content)
            os.replace(name, path)
        except OSError:
            os.unlink(name)
            raise

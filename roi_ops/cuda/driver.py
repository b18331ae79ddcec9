"""Start kernels on the GPU: load what the compiler made, launch on PyTorch's current stream. Never waits.

``cuda.core`` launches no kernel that takes a struct by value, so the launch itself is ``cuLaunchKernel``.
"""

from __future__ import annotations

import ctypes
import threading
from functools import cache
from typing import Any

import torch

from roi_ops.cuda.compiler import CompileError, compiled
from roi_ops.cuda.plan import Launch
from roi_ops.cuda.programs import Kernel

# What the driver says of code that it will never take; other errors, as of memory, may be gone at the next call.
UNUSABLE = {
    *("CUDA_ERROR_INVALID_IMAGE", "CUDA_ERROR_NO_BINARY_FOR_GPU", "CUDA_ERROR_INVALID_PTX", "CUDA_ERROR_NOT_FOUND"),
    *("CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "CUDA_ERROR_JIT_COMPILER_NOT_FOUND", "CUDA_ERROR_JIT_COMPILATION_DISABLED"),
}


class DriverError(RuntimeError):
    """The driver refuses; ``status`` is its name for the reason."""

    def __init__(self, status: str) -> None:
        super().__init__(f"CUDA driver: {status}")
        self.status = status


class Driver:
    """The launcher for CUDA tensors."""

    def __init__(self) -> None:
        self._functions: dict[tuple[Kernel, int], Any] = {}
        self._lock = threading.Lock()
        self._bound = threading.local()

    def launch(self, kernel: Kernel, launch: Launch, arguments: ctypes.Structure, device: torch.device) -> None:
        """Launch on the current stream of ``device``.

        Raises:
            CompileError: the kernel does not compile, or the driver cannot load it.
            RuntimeError: the driver refuses; errors of the kernel itself show up later, as PyTorch's do.
        """
        driver = _bindings()
        index = torch.cuda.current_device() if device.index is None else device.index
        with torch.cuda.device(index):
            self._bind(index)
            function = self._functions.get((kernel, index)) or self._load(kernel, index)
            # cuLaunchKernel copies the arguments before it returns, so they may live on this frame.
            pointer = ctypes.c_void_p(ctypes.addressof(arguments))
            stream = torch.cuda.current_stream(index).cuda_stream
            (status,) = driver.cuLaunchKernel(
                function, launch.grid, 1, 1, launch.block, 1, 1, launch.shared, stream, ctypes.addressof(pointer), 0
            )
        if status != driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"launch of {kernel.name} ({launch}) failed: {status.name}")

    def _bind(self, index: int) -> None:
        """Make PyTorch's context current in a thread that has never used the runtime."""
        if getattr(self._bound, "done", False):
            return
        driver = _bindings()
        status, context = driver.cuCtxGetCurrent()
        if status == driver.CUresult.CUDA_SUCCESS and not int(context):
            device = _check(driver.cuDeviceGet(index))
            _check(driver.cuCtxSetCurrent(_check(driver.cuDevicePrimaryCtxRetain(device))))
        self._bound.done = True

    def _load(self, kernel: Kernel, index: int) -> Any:
        driver = _bindings()
        with self._lock:
            found = self._functions.get((kernel, index))
            if found is not None:
                return found
            code = compiled(kernel, architecture(index))
            # Loading may happen in the middle of a graph's capture, which must not take notice.
            relaxed = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
            mode = _check(driver.cuThreadExchangeStreamCaptureMode(relaxed))
            try:
                module = _check(driver.cuModuleLoadData(code))
                function = _check(driver.cuModuleGetFunction(module, kernel.name.encode()))
            except DriverError as error:  # such as a driver too old for what the compiler makes
                message = f"{kernel.name}: the driver does not take what was compiled: {error}"
                raise CompileError(message, is_lasting=error.status in UNUSABLE) from error
            finally:
                driver.cuThreadExchangeStreamCaptureMode(mode)
            self._functions[kernel, index] = function
            return function


@cache
def _bindings() -> Any:
    """``cuda.bindings.driver``.

    Raises:
        CompileError: it cannot be imported.
    """
    try:
        from cuda.bindings import driver
    except Exception as error:  # versions of NVIDIA's packages that do not fit raise more than ImportError
        raise CompileError(f"cuda.bindings.driver cannot be imported: {error}") from error
    return driver


@cache
def architecture(index: int) -> str:
    """The device's architecture, such as ``sm_90``."""
    major, minor = torch.cuda.get_device_capability(index)
    return f"sm_{major}{minor}"


def _check(result: tuple) -> Any:
    status, *values = result
    if int(status):
        raise DriverError(status.name)
    return values[0] if values else None

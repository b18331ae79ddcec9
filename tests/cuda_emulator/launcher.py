"""A launcher that runs kernels on CPU tensors, through the library that ``build`` makes."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from roi_ops.cuda.plan import MAX_THREADS, SHARED_BUDGET, Launch
from roi_ops.cuda.programs import Kernel


class Emulator:
    """The launch interface of ``roi_ops.cuda.driver.Driver`` on the CPU; ``launched`` are the kernels' names."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.emulator_sizeof.restype = ctypes.c_size_t
        self.launched: list[str] = []

    def launch(self, kernel: Kernel, launch: Launch, arguments: ctypes.Structure, device: Any) -> None:
        """Run all blocks; what a device would refuse is an error."""
        assert device.type == "cpu"
        assert launch.grid > 0
        assert launch.block % 32 == 0
        assert 0 < launch.block <= MAX_THREADS
        assert 0 <= launch.shared <= SHARED_BUDGET
        self.launched.append(kernel.name)
        run = self._library.emulator_run
        status = run(
            kernel.name.encode(),
            ctypes.c_uint(launch.grid),
            ctypes.c_uint(launch.block),
            ctypes.c_size_t(launch.shared),
            ctypes.byref(arguments),
        )
        assert status == 0, f"the emulator was built without {kernel.name}"

    def sizeof(self, struct: str) -> int:
        """Bytes of a struct in the compiled device code."""
        return self._library.emulator_sizeof(struct.encode())

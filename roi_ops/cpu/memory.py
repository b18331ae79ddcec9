"""Memory for large results, used again from call to call.

The C library gives a tensor of this size fresh pages from the system, each time, and the system clears them first:
to pool 1024 RoIs of 1280 channels takes 15 ms, to clear the 257 MB they go to takes 28 ms. PyTorch does not keep
memory of the CPU, so it is done here: the memory of a result that is gone serves a later one. Meanwhile it is marked
as free (``MADV_FREE``), so that the system takes it back when it runs short of memory.
"""

from __future__ import annotations

import math
import mmap
import sys
import threading
import weakref
from collections.abc import Sequence

import torch
from torch import Tensor

try:
    from roi_ops.cpu import _kernels
except ImportError:  # nobody asks for memory then
    _kernels = None

__all__ = ["RECYCLED_BYTES", "empty_strided", "idle_bytes", "release"]

RECYCLED_BYTES = 32 << 20
"""Results from this size on are recycled: the size from which on glibc always gives fresh pages."""
_IDLE_LIMIT = 1 << 30  # bytes that may wait to be used again
_PAGE = 2 << 20  # size of a huge page
_WASTE = 1.25  # a block serves results that are at most this much smaller

_lock = threading.Lock()
_idle: list[mmap.mmap] = []  # the longest idle first


def empty_strided(shape: Sequence[int], strides: Sequence[int], dtype: torch.dtype) -> tuple[Tensor, bool]:
    """A dense tensor with anything in it, and whether that is known to be zeros.

    Args:
        shape: sizes.
        strides: in elements; no two elements share a place, and none lies outside ``prod(shape)`` elements.
        dtype: any dtype.
    """
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < RECYCLED_BYTES or sys.platform != "linux":
        return torch.empty_strided(shape, strides, dtype=dtype), False
    block = _take(nbytes)
    fresh = block is None
    if block is None:
        try:
            block = mmap.mmap(-1, -(-nbytes // _PAGE) * _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError:  # PyTorch has the better words for it
            return torch.empty_strided(shape, strides, dtype=dtype), False
    view = memoryview(block)
    weakref.finalize(view, _give_back, block).atexit = False
    storage = torch.frombuffer(view, dtype=torch.uint8, count=nbytes).untyped_storage()  # keeps `view` alive
    tensor = torch.empty(0, dtype=dtype).set_(storage, 0, tuple(shape), tuple(strides))
    if fresh:
        _kernels.expect_filling(tensor.data_ptr(), nbytes, torch.get_num_threads())
    return tensor, fresh


def idle_bytes() -> int:
    """Bytes that wait to be used again."""
    return sum(len(block) for block in tuple(_idle))


def release() -> None:
    """Gives the memory that waits to be used again back to the system."""
    with _lock:
        _idle.clear()


def _take(nbytes: int) -> mmap.mmap | None:
    with _lock:
        fitting = [block for block in _idle if nbytes <= len(block) <= max(nbytes * _WASTE, nbytes + _PAGE)]
        if not fitting:
            return None
        block = min(fitting, key=len)
        _idle.remove(block)
        return block


def _give_back(block: mmap.mmap) -> None:
    """Called when the tensor is gone: at any moment, by any thread, so without the lock."""
    if hasattr(mmap, "MADV_FREE"):
        block.madvise(mmap.MADV_FREE)
    _idle.append(block)
    while idle_bytes() > _IDLE_LIMIT:
        try:
            _idle.pop(0)
        except IndexError:  # another thread was faster
            break

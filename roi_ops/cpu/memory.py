"""Memory for large results, used again from call to call.

The C library gives a tensor of this size fresh pages from the system, each time, and the system clears them first:
to pool 1024 RoIs of 1280 channels takes 15 ms, to clear the 257 MB they go to takes 28 ms. PyTorch does not keep
memory of the CPU, so it is done here: the memory of a result that is gone serves a later one. Meanwhile it is marked
as free (``MADV_FREE``), so that the system takes it back when it runs short of memory; until then it counts as
resident memory of the process.

``ROI_OPS_IDLE_MB`` in the environment limits what may wait (512 by default); 0 turns all of this off. The storage of
a recycled tensor cannot be resized (``resize_``, ``out=`` of another size), as that of ``torch.frombuffer`` cannot.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

try:
    from roi_ops.cpu import _kernels
except ImportError:  # nobody asks for memory then
    _kernels = None

__all__ = ["RECYCLED_BYTES", "VARIABLE", "empty_strided", "idle_bytes", "release"]

RECYCLED_BYTES = 32 << 20
"""Results from this size on are recycled: the size from which on glibc always gives fresh pages."""
VARIABLE = "ROI_OPS_IDLE_MB"
_PAGE = 2 << 20  # size of a huge page
_WASTE = 1.25  # a block serves results that are at most this much smaller


def _limit() -> int:
    """Bytes that may wait to be used again.

    Raises:
        ValueError: the environment's number is none.
    """
    text = os.environ.get(VARIABLE) or "512"
    if not text.isdecimal():
        raise ValueError(f"{VARIABLE}={text!r}: must be a number of megabytes, 0 to recycle nothing")
    return int(text) << 20


_idle_limit = _limit()
_lock = threading.Lock()
_idle: list[mmap.mmap] = []  # the longest idle first; only touched under the lock
# Tensors die at any moment, in any thread, also in the middle of what the lock protects: their blocks wait here.
_returned: deque[mmap.mmap] = deque()


def empty_strided(shape: Sequence[int], strides: Sequence[int], dtype: torch.dtype) -> tuple[Tensor, bool]:
    """A dense tensor with anything in it, and whether that is known to be zeros.

    Args:
        shape: sizes.
        strides: in elements; no two elements share a place, and none lies outside ``prod(shape)`` elements.
        dtype: any dtype.
    """
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < RECYCLED_BYTES or not _idle_limit or sys.platform != "linux":
        return torch.empty_strided(shape, strides, dtype=dtype), False
    block = _take(nbytes)
    fresh = block is None
    if block is None:
        block = _map(nbytes)
    if block is None:  # PyTorch has the better words for it
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
    with _lock:
        _collect()
        return sum(len(block) for block in _idle)


def release() -> None:
    """Gives the memory that waits to be used again back to the system."""
    with _lock:
        _collect()
        _idle.clear()


def _map(nbytes: int) -> mmap.mmap | None:
    """A fresh block of zeros; None if there is no memory."""
    for _ in range(2):
        with contextlib.suppress(OSError):
            return mmap.mmap(-1, -(-nbytes // _PAGE) * _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        release()  # what waits may be what is missing
    return None


def _take(nbytes: int) -> mmap.mmap | None:
    with _lock:
        _collect()
        fitting = [block for block in _idle if nbytes <= len(block) <= max(nbytes * _WASTE, nbytes + _PAGE)]
        if not fitting:
            return None
        block = min(fitting, key=len)
        _idle.remove(block)
        return block


def _give_back(block: mmap.mmap) -> None:
    """Called when the tensor is gone."""
    if hasattr(mmap, "MADV_FREE"):
        with contextlib.suppress(OSError):  # locked memory; then it just waits as it is
            block.madvise(mmap.MADV_FREE)
    _returned.append(block)
    if _lock.acquire(blocking=False):  # else who has it collects, now or next time
        try:
            _collect()
        finally:
            _lock.release()


def _collect() -> None:
    """Take over what was returned and drop what is beyond the limit. Under the lock."""
    while _returned:
        _idle.append(_returned.popleft())
    while sum(len(block) for block in _idle) > _idle_limit:
        _idle.pop(0)


def _before_fork() -> None:
    """A child would share the pages, which copies them, in small ones, when either writes; and maybe a held lock."""
    _lock.acquire()
    _collect()
    _idle.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_lock.release, after_in_child=_lock.release)

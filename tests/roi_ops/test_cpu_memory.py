"""Large results use the memory of results that are gone, and of those only."""

from __future__ import annotations

import errno
import gc
import mmap
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

import roi_ops
from roi_ops import cpu
from roi_ops.cpu import memory

pytestmark = [
    pytest.mark.skipif(not cpu.available(), reason=cpu.why_not() or ""),
    pytest.mark.skipif(sys.platform != "linux", reason="memory is recycled on Linux only"),
]
SHAPE = (64, 8, 16, 16)
STRIDES = (2048, 256, 16, 1)


@pytest.fixture(autouse=True)
def small_results_count(monkeypatch: pytest.MonkeyPatch):
    """Recycle results of any size worth a page, and begin and end with nothing idle."""
    monkeypatch.setattr(memory, "RECYCLED_BYTES", 4096)
    memory.release()
    yield
    memory.release()


def empty() -> Tensor:
    return memory.empty_strided(SHAPE, STRIDES, torch.float32)[0]


def test_memory_is_fresh_and_zero_once_and_then_used_again() -> None:
    first, zeroed = memory.empty_strided(SHAPE, STRIDES, torch.float32)
    assert zeroed
    assert not first.any()
    assert (first.shape, first.stride()) == (SHAPE, STRIDES)
    address = first.fill_(3).data_ptr()
    del first
    assert memory.idle_bytes() >= 64 * 8 * 16 * 16 * 4
    second, zeroed = memory.empty_strided(SHAPE, STRIDES, torch.float32)
    assert not zeroed
    assert second.data_ptr() == address
    assert memory.idle_bytes() == 0


def test_a_view_keeps_the_memory() -> None:
    first = empty().fill_(1)
    part = first[1, 2]
    del first
    gc.collect()
    second = empty().fill_(2)
    assert memory.idle_bytes() == 0
    assert (part == 1).all()
    assert (second == 2).all()


def test_results_of_another_size_fit_within_limits() -> None:
    def address(rows: int) -> int:
        return memory.empty_strided((rows, 1, 1, 1 << 20), (1 << 20, 1 << 20, 1 << 20, 1), torch.float32)[0].data_ptr()

    eight = address(8)  # 32 MB
    assert address(7) == eight  # 28 MB: not much is wasted
    assert address(4) != eight  # half of it would be
    assert memory.idle_bytes() == (32 + 16) << 20


def test_what_waits_is_limited_and_released(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_idle_limit", 5 << 20)  # a block is 2 MB
    held = [empty() for _ in range(4)]
    held.clear()
    assert memory.idle_bytes() == 4 << 20
    memory.release()
    assert memory.idle_bytes() == 0


def test_results_outlive_their_successors() -> None:
    """Values and gradients of a loop that keeps some results are those of the reference."""
    features = torch.randn(2, 8, 20, 24, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(0)
    kept = []
    for i in range(6):
        low = torch.rand(30, 2, generator=generator) * 12
        boxes = torch.cat([torch.randint(2, (30, 1), generator=generator), low, low + 8], 1)
        results = []
        for backend in ("cpu", "reference"):
            f = features.clone().requires_grad_()
            with roi_ops.use_backend(backend):
                for operator in (roi_ops.roi_align, roi_ops.roi_pool):
                    out = operator(f, boxes, 7)
                    (gradient,) = torch.autograd.grad(out.square().sum(), f)
                    results += [out.detach(), gradient]
        kept.append(results)
        if i % 2:
            kept.pop(0)
    assert len(kept) == 3
    for results in kept:
        for ours, reference in zip(results[:4], results[4:], strict=True):
            torch.testing.assert_close(ours, reference, rtol=1e-12, atol=1e-12)


def test_threads_never_share_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four threads that take and return at once, with less room to wait than they need."""
    monkeypatch.setattr(memory, "_idle_limit", 5 << 20)  # two blocks

    def work(number: int) -> bool:
        return all((empty().fill_(number) == number).all() for _ in range(100))

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # else four teams of threads wait for each other
    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(work, range(4)))  # raises what a thread raised
    finally:
        torch.set_num_threads(before)


def test_what_waits_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """When there is no memory, what waits is given back and it is tried again; then PyTorch may try."""
    held = empty()
    del held
    assert memory.idle_bytes() > 0
    real, refused = mmap.mmap, []

    def full(*args, **kwargs):
        if memory._idle:
            refused.append(args)
            raise OSError(errno.ENOMEM, "no memory")
        return real(*args, **kwargs)

    monkeypatch.setattr(memory.mmap, "mmap", full)
    larger, fresh = memory.empty_strided((1, 1, 1, 1 << 21), (1 << 21,) * 3 + (1,), torch.float32)
    assert fresh
    assert not larger.any()
    assert len(refused) == 1
    assert memory.idle_bytes() == 0


@pytest.mark.filterwarnings("ignore:This process")  # Python's own advice on forks and threads
def test_a_forked_child_starts_with_nothing_and_an_open_lock() -> None:
    held = empty()
    del held
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # as in a DataLoader's worker: OpenMP's threads are not there any more
        os._exit(0 if memory.idle_bytes() == 0 and empty().numel() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert memory.idle_bytes() == 0


@pytest.mark.parametrize(("value", "outcome"), [("0", "0 0"), ("64", "67108864 4194304"), ("x", "must be a number")])
def test_the_environment_limits_what_waits(value: str, outcome: str) -> None:
    code = (
        "import torch; from roi_ops.cpu import memory; memory.RECYCLED_BYTES = 4096\n"
        "t = memory.empty_strided((1, 1, 1, 1 << 20), (1, 1, 1, 1), torch.float32)[0]; del t\n"
        "print(memory._idle_limit, memory.idle_bytes())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                         env=os.environ | {memory.VARIABLE: value})  # fmt: skip
    assert outcome in run.stdout + run.stderr

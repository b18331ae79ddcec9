"""Step smoke: ``python -m gpu_kit.smoke cuda|emulator [SEED]`` compares every kernel with the reference in float64.

All kinds, storage types and memory formats on fresh random inputs, forward and backward. On a GPU also: the sizes of a
detector against torchvision's CUDA kernels, a captured step that replays to the same bits, and no wait for the GPU.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor

import roi_ops
from gpu_kit import cuda_cache
from roi_ops import backends, cuda, reference
from roi_ops.cuda import compiler
from roi_ops.cuda.operators import Operators
from roi_ops.geometry import LINEAR_KINDS, MAX_KINDS
from roi_ops.maps import describe

# Error relative in the 2-norm that rounding explains: to the storage type, sums in float32 (float64 for float64).
LIMITS = {torch.float64: 1e-11, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.2e-2}
BOXES = 20.0  # times that for the gradient of the boxes, which is a difference of large sums
SHOWN = 5  # complaints of a kind
TORCHVISION = 1e-5  # against torchvision's kernels in float32, which add in another order


class Sizes(NamedTuple):
    """Of a problem: boxes, height and width of the finer of two maps, channels that fill 16-byte loads or do not."""

    boxes: int
    height: int
    width: int
    whole: int
    ragged: int


GPU, EMULATOR = Sizes(90, 64, 72, 64, 37), Sizes(10, 24, 28, 16, 5)


def error(ours: Tensor, exact: Tensor) -> float:
    """Relative error in the 2-norm; infinite for another shape; NaN if there is one."""
    a, b = ours.detach().double().cpu(), exact.detach().double().cpu()
    if a.shape != b.shape:
        return float("inf")
    return ((a - b).norm() / b.norm().clamp(min=1e-30)).item()


def compare(operators: Any, device: str, sizes: Sizes, seed: int) -> list[str]:
    """Every kernel against the reference; returns what is wrong.

    Args:
        operators: the seven backend functions, for tensors on ``device``.
        device: of the kernels; the reference runs on the CPU.
        sizes: of the problems.
        seed: of the inputs.
    """
    generator = torch.Generator().manual_seed(seed)
    wrong: list[str] = []
    for kind in LINEAR_KINDS + MAX_KINDS:
        before = len(wrong)
        for dtype, limit in LIMITS.items():
            for layout, channels in (
                ("channels_last", sizes.whole),
                ("channels_last", sizes.ragged),
                ("contiguous", sizes.whole),
            ):
                case = f"{kind} {str(dtype).removeprefix('torch.')} {layout} C={channels}"
                maps, boxes, grad = problem(sizes, channels, dtype, generator)
                last = torch.channels_last if layout == "channels_last" else torch.contiguous_format
                for name, ours, exact in results(
                    operators, kind, [m.to(device, memory_format=last) for m in maps], boxes, grad
                ):
                    if name == "argmax":
                        different = int((ours.cpu() != exact).sum())
                        wrong += [f"{case}: argmax differs at {different} of {exact.numel()}"] if different else []
                        continue
                    found = error(ours, exact)
                    if not found <= limit * (BOXES if name == "boxes" else 1):
                        wrong.append(f"{case}: {name} has error {found:.1e}")
        complain(kind, wrong[before:])
    return wrong


def complain(kind: str, wrong: list[str]) -> None:
    """Say at once what is wrong with a kind: the step may be stopped before its end."""
    first = [f"  {line}" for line in wrong[:SHOWN]]
    more = [f"  and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
    say("\n".join([f"{kind}: {f'{len(wrong)} FAILED' if wrong else 'passed'}", *first, *more]))


def problem(
    sizes: Sizes, channels: int, dtype: torch.dtype, generator: torch.Generator
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Two maps of two images in ``dtype``, boxes (some beyond the image) and the gradient of the output."""
    random = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    maps = [random(2, channels, sizes.height >> i, sizes.width >> i) for i in range(2)]
    corners = torch.rand(sizes.boxes, 2, 2, generator=generator) * (4.2 * sizes.width) - 20
    index = torch.randint(2, (sizes.boxes, 1), generator=generator)
    boxes = torch.cat([index, corners.sort(1).values.flatten(1)], 1)
    return (
        maps,
        boxes.to(torch.float64 if dtype == torch.float64 else torch.float32),
        random(sizes.boxes, channels, 7, 7),
    )


def results(
    operators: Any, kind: str, maps: list[Tensor], boxes: Tensor, grad: Tensor
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, the kernel's result and the exact one, for every function that serves ``kind``.

    The reference gets the features in float64 and the boxes as they are: levels and borders fall alike.
    """
    geometry = ([0.25, 0.125], kind, 7, 7, 2, 2, 3, 60.0, 2.5)
    wide, exact_grad = [m.double().cpu() for m in maps], grad.double()
    on = [t.to(maps[0].device) for t in (boxes, grad)]
    if kind in LINEAR_KINDS:
        yield (
            "forward",
            operators.linear_forward(maps, on[0], False, *geometry),
            reference.linear_forward(wide, boxes, False, *geometry),
        )
        if grad.dtype in (torch.float32, torch.float64):
            yield ("boxes", operators.linear_backward_boxes(on[1], maps, on[0], *geometry),
                   reference.linear_backward_boxes(exact_grad, wide, boxes, *geometry))  # fmt: skip
        gradients = operators.linear_backward_features(on[1], on[0], *describe(maps), *geometry)
        exact = reference.linear_backward_features(exact_grad, boxes, *describe(wide), *geometry)
    else:
        out, argmax = operators.max_forward(maps, on[0], False, *geometry)
        # Which of two equal maxima is meant depends on rounding, so the reference rounds as the kernel does.
        known, exact_argmax = reference.max_forward([m.cpu() for m in maps], boxes, False, *geometry)
        yield "forward", out, known
        yield "argmax", argmax, exact_argmax
        yield "gather", operators.max_gather(maps, argmax, on[0], *geometry), known
        if kind != "pool" and grad.dtype in (torch.float32, torch.float64):
            yield ("boxes", operators.max_backward_boxes(on[1], argmax, maps, on[0], *geometry),
                   reference.max_backward_boxes(exact_grad, exact_argmax, wide, boxes, *geometry))  # fmt: skip
        gradients = operators.max_backward_features(on[1], argmax, on[0], *describe(maps), *geometry)
        exact = reference.max_backward_features(exact_grad, exact_argmax, boxes, *describe(wide), *geometry)
    for i, pair in enumerate(zip(gradients, exact, strict=True)):
        yield f"gradient of map {i}", *pair


def compare_with_torchvision() -> list[str]:
    """1000 RoIs of a pyramid on the GPU: output and gradients against torchvision's; a captured step; no wait."""
    from detector.benchmark.workloads import Scene

    scene = Scene((800, 1088), 1, "cuda")
    maps, boxes = scene.pyramid(), scene.proposals(1000)
    leaves = list(maps.values())
    ours, peer = (
        module(list(maps), 7, 2) for module in (roi_ops.MultiScaleRoIAlign, torchvision.ops.MultiScaleRoIAlign)
    )
    grad = torch.randn(1000, 256, 7, 7, device="cuda")

    def step(pooler: torch.nn.Module) -> list[Tensor]:
        out = pooler(maps, boxes, [scene.size])
        return [out.detach(), *torch.autograd.grad(out, leaves, grad)]

    wrong = []
    errors = [error(a, b) for a, b in zip(step(ours), step(peer), strict=True)]
    say("1000 RoIs against torchvision, error of the output and of four gradients:", [f"{e:.1e}" for e in errors])
    if not max(errors) <= TORCHVISION:
        wrong.append(f"torchvision: errors {errors}")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step(ours)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(ours)
    graph.replay()
    torch.cuda.synchronize()
    if not all(torch.equal(a, b) for a, b in zip(captured, step(ours), strict=True)):
        wrong.append("a captured step does not replay to the same bits")
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(ours)
    except RuntimeError as failure:
        wrong.append(f"a step waits for the GPU: {failure}")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return wrong


def say(*words: object) -> None:
    """A line of the log."""
    print(*words, flush=True)


def about_the_gpu() -> None:
    """Card, compiler, and how many kernels the cache has for it."""
    from roi_ops.cuda.driver import architecture

    card, arch = torch.cuda.get_device_properties(0), architecture(0)
    found, every = cuda_cache.count()
    say(f"{card.name}, {card.multi_processor_count} multiprocessors, {card.L2_cache_size >> 20} MB L2, {arch}")
    say(f"{cuda.status()['compiler']}: {found} of {every} kernels are in {compiler.cache_folder()}")


def main(where: str, seed: int) -> int:
    """Print what was compared and what is wrong; the exit code is 1 if anything is."""
    begun = time.monotonic()
    if where == "cuda":
        from roi_ops.cuda.driver import Driver

        if (reason := backends.why_not("cuda")) is not None:
            say(f"the CUDA kernels cannot be used here: {reason}")
            return 1
        about_the_gpu()
        operators, device, sizes = Operators(Driver()), "cuda", GPU
    else:
        from cuda_emulator.emulated import operators as emulated

        operators, device, sizes = emulated(), "cpu", EMULATOR
    torch.use_deterministic_algorithms(True)  # fills new memory with NaN: an element that nobody writes shows
    wrong = compare(operators, device, sizes, seed)
    torch.use_deterministic_algorithms(False)
    say(f"{time.monotonic() - begun:.0f} s: every kernel compared with float64, seed {seed}")
    if where == "cuda":
        with backends.use_backend("cuda"):
            others = compare_with_torchvision()
        complain("a detector's sizes", others)
        wrong += others
    say(f"smoke: {f'{len(wrong)} FAILED' if wrong else 'passed'}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())))

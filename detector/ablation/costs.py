"""What an arm costs besides accuracy: time of its operator, of inference, memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detector.ablation.record import peak_memory_mb
from detector.data.splits import validation_split
from detector.evaluation.detect import choose_device
from detector.models.checkpoint import TrainedModel, load_trained_model, read_checkpoint

IMAGES = 12  # validation images that inference is timed on
REPEATS = 7


def measure(best: Path) -> dict[str, float | None]:
    """Costs of the detector in a checkpoint, on the device it was trained on; to be called in the process that did.

    Returns:
        ``forward_ms``, ``backward_ms``: median time of its RoI operator on the feature maps of a training batch with as
        many proposals as are sampled of it; ``inference_ms``: median time of an image, loading apart;
        ``peak_memory_mb``: of the process up to here, GPU memory if a GPU was used.
    """
    memory = peak_memory_mb()
    config = read_checkpoint(best).config
    module = load_trained_model(best, choose_device(config.trainer.accelerator))
    dataset = validation_split(config.data, str(best)).dataset()
    device = next(module.parameters()).device
    images = [dataset[i][0].to(device) for i in range(min(IMAGES, len(dataset)))]
    forward, backward = operator_ms(module, [images[i % len(images)] for i in range(config.data.batch_size)])
    return {"forward_ms": forward, "backward_ms": backward, "inference_ms": inference_ms(module, images),
            "peak_memory_mb": memory}  # fmt: skip


def median_ms(calls: Sequence[Callable[[], Any]], device: torch.device) -> float:
    """Median time of the calls in milliseconds, until the device has done them; the first is made once before."""
    times = []
    for call in [calls[0], *calls]:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        begun = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(times[1:])


def inference_ms(module: TrainedModel, images: list[Tensor]) -> float:
    """Median time of an image in a batch of its own."""
    with torch.inference_mode():
        return median_ms([lambda image=image: module([image]) for image in images], images[0].device)  # type: ignore[misc]


def operator_ms(module: TrainedModel, images: list[Tensor]) -> tuple[float, float]:
    """Median times of the RoI operator, forward and backward to the feature maps, for one training step's proposals."""
    features, proposals, sizes = inputs_of_operator(module, images)
    count = module.config.model.head.batch_size_per_image
    proposals = [boxes[:count] for boxes in proposals]
    pooler: Any = module.model.roi_heads.box_roi_pool
    device = images[0].device
    leaves = {name: value.detach().requires_grad_() for name, value in features.items()}
    out = pooler(leaves, proposals, sizes)
    gradient = torch.randn_like(out)
    used = [leaves[name] for name in pooler.featmap_names]
    with torch.no_grad():
        forward = median_ms([lambda: pooler(features, proposals, sizes)] * REPEATS, device)
    backward = lambda: torch.autograd.grad(out, used, gradient, retain_graph=True, allow_unused=True)
    return forward, median_ms([backward] * REPEATS, device)


def inputs_of_operator(
    module: TrainedModel, images: list[Tensor]
) -> tuple[dict[str, Tensor], list[Tensor], list[tuple[int, int]]]:
    """What the RoI operator of a detector is called with for a batch: maps by name, proposals, sizes of the images."""
    seen: list[Any] = []
    hook = module.model.roi_heads.box_roi_pool.register_forward_pre_hook(lambda _, given: seen.append(given))
    try:
        with torch.no_grad():
            module(images)
    finally:
        hook.remove()
    features, proposals, sizes = seen[0]
    return dict(features), list(proposals), list(sizes)

"""What a cell costs besides accuracy: time of its operator, time of inference, memory."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detector.config.targets import trust_in
from detector.data.splits import validation_split
from detector.measure import call_ms, latencies, peak_memory_mb
from detector.models.checkpoint import TrainedModel, load_trained_model, read_checkpoint
from detector.models.device import choose_device

IMAGES = 12  # validation images that inference is timed on
REPEATS = 7


def measure(best: Path) -> dict[str, float | None]:
    """Costs of the detector in a checkpoint, measured in the process that trained it, on the same device.

    Returns:
        ``forward_ms``, ``backward_ms``: median time of its RoI operator on the feature maps of a training batch, with
        as many proposals per image as a training step samples; ``inference_ms``: median time per image, loading not
        counted; ``peak_memory_mb``: of the process so far, of the GPU if one was used.
    """
    memory = peak_memory_mb()
    stored = read_checkpoint(best).config
    # This process has just written the file, with the classes of its own configuration.
    module = load_trained_model(best, choose_device(stored.trainer.accelerator), trust_in(stored))
    config = module.config
    dataset = validation_split(config.data, str(best)).dataset()
    device = next(module.parameters()).device
    images = [dataset[i][0].to(device) for i in range(min(IMAGES, len(dataset)))]
    forward, backward = operator_ms(module, [images[i % len(images)] for i in range(config.data.batch_size)])
    return {"forward_ms": forward, "backward_ms": backward, "inference_ms": inference_ms(module, images),
            "peak_memory_mb": memory}  # fmt: skip


@torch.inference_mode()
def inference_ms(module: TrainedModel, images: list[Tensor]) -> float:
    """Median time per image, each in a batch of its own."""
    module([images[0]])
    return statistics.median(call_ms(lambda image=image: module([image]), image.device) for image in images)  # type: ignore[misc]


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
        forward = latencies(lambda: pooler(features, proposals, sizes), REPEATS, device)
    backward = latencies(
        lambda: torch.autograd.grad(out, used, gradient, retain_graph=True, allow_unused=True), REPEATS, device
    )
    return statistics.median(forward), statistics.median(backward)


def inputs_of_operator(
    module: TrainedModel, images: list[Tensor]
) -> tuple[dict[str, Tensor], list[Tensor], list[tuple[int, int]]]:
    """The arguments of the RoI operator of a detector for a batch: maps by name, proposals, sizes of the images."""
    seen: list[Any] = []
    hook = module.model.roi_heads.box_roi_pool.register_forward_pre_hook(lambda _, given: seen.append(given))
    try:
        with torch.no_grad():
            module(images)
    finally:
        hook.remove()
    features, proposals, sizes = seen[0]
    return dict(features), list(proposals), list(sizes)

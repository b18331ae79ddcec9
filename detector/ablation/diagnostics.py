"""The operators themselves, without more training: on a linear ramp, under a shift, exchanged after training."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset

from detector.ablation.cell_run import WEIGHTS
from detector.ablation.cells import Cell
from detector.ablation.study import Study
from detector.config.checks import is_target
from detector.config.schema import RoiConfig, to_dict
from detector.config.targets import trust_in
from detector.data.coco import CocoDataset
from detector.data.loader import DetectionLoader
from detector.data.splits import validation_split
from detector.evaluation.detect import run_detector
from detector.evaluation.detections import Detections
from detector.evaluation.ground_truth import GroundTruth
from detector.evaluation.scoring import evaluate
from detector.files import read_json_or_empty, write_json
from detector.models.checkpoint import TrainedModel, load_trained_model
from detector.models.device import choose_device
from detector.models.poolers import build_pooler, feature_maps, pooled_strides
from detector.words import counted

FILE = "diagnostics.json"
SHIFTS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # pixels of the image, in x and y at once
SHIFTED = 24  # validation images that are shifted
EVALUATED = 200  # validation images that exchanged operators are scored on


def update_diagnostics(study: Study, say: Callable[[str], None]) -> dict[str, Any]:
    """The diagnostics of a study: made if runs have been added since they were last made, and kept on disk.

    Args:
        study: its finished runs with weights are examined, in each context those of the seed with most of them.
        say: prints a line of progress.

    Returns:
        ``runs``: names of runs by context and level. ``ramp``: :func:`ramp` by level. ``contexts``: by context
        ``seed``, ``swap`` (AP in points of the weights trained with one level, tested with another), ``truth`` (AP with
        the true boxes as proposals) and ``jitter`` (:func:`jitter`), each by level; ``shifts`` in pixels.
    """
    chosen = {context: representatives(study, context) for context in study.contexts}
    names = {context: {level: cell.name for level, cell in cells.items()} for context, cells in chosen.items()}
    key = hashlib.sha256(json.dumps([names, SHIFTS, SHIFTED, EVALUATED]).encode()).hexdigest()[:16]
    kept = read_json_or_empty(study.folder / FILE)
    if kept.get("key") == key:
        return kept
    operators = {cell.levels[study.compare]: cell.config.roi for cell in study.cells}
    found: dict[str, Any] = {"key": key, "runs": names, "shifts": SHIFTS, "contexts": {}, "ramp": {}}
    if len({json.dumps(to_dict(roi)) for roi in operators.values()}) > 1:
        found["ramp"] = {level: ramp_if_possible(roi) for level, roi in operators.items()}
    for context, cells in chosen.items():
        if cells:
            where = f" at {context}" if context else ""
            say(f"diagnostics{where}: {counted(len(cells), 'operator')} exchanged, shifted")
            found["contexts"][context] = of_context(cells)
    write_json(study.folder / FILE, found)
    return found


def representatives(study: Study, context: str) -> dict[str, Cell]:
    """Finished cells with weights by level, all of one seed: the first seed of those with most levels."""
    found: dict[int, dict[str, Cell]] = {}
    for cell in study.finished():
        if study.context(cell.levels) == context and (cell.folder / WEIGHTS).is_file():
            found.setdefault(cell.seed, {})[cell.levels[study.compare]] = cell
    return max(found.values(), key=len, default={})


def of_context(cells: dict[str, Cell]) -> dict[str, Any]:
    """Exchange, true boxes and jitter for the levels in one context."""
    result: dict[str, Any] = {"swap": {}, "truth": {}, "jitter": {}}
    for level, cell in cells.items():
        result["seed"] = cell.seed
        device = choose_device(cell.config.trainer.accelerator)
        module = load_trained_model(cell.folder / WEIGHTS, device, trust_in(cell.config))
        module.config.data.root = cell.config.data.root
        split = validation_split(cell.config.data, cell.name)
        truth = GroundTruth.of(split)
        dataset = split.dataset()
        count = min(EVALUATED, len(dataset))
        result["jitter"][level] = jitter(module, [dataset[i] for i in range(min(SHIFTED, len(dataset)))])
        result["truth"][level] = score(truth_as_proposals(module, dataset, count), truth, dataset.image_ids[:count])
        result["swap"][level] = {}
        for other, donor in cells.items():
            if interchangeable(cell, donor):
                exchanged = module if other == level else with_operator(module, donor.config.roi)
                if exchanged is None:
                    continue
                loader = DetectionLoader(Subset(dataset, range(count)), batch_size=cell.config.data.eval_batch_size)
                found = run_detector(exchanged, loader, module.category_ids).detections
                result["swap"][level][other] = score(found, truth, dataset.image_ids[:count])
    return result


def score(found: Detections, truth: GroundTruth, image_ids: list[int]) -> float | None:
    """AP in points."""
    value = evaluate(truth, found, image_ids).metrics["AP"]
    return None if value is None else 100 * value


# ---------------------------------------------------------------------------------------------- operators
def interchangeable(cell: Cell, donor: Cell) -> bool:
    """Whether the operator of ``donor`` fits the weights of ``cell``: the same model, and as many bins."""
    same_model = to_dict(cell.config.model) == to_dict(donor.config.model)
    return same_model and cell.config.roi.output_size == donor.config.roi.output_size


def with_operator(module: TrainedModel, roi: RoiConfig) -> TrainedModel | None:
    """A shallow copy of a detector with another RoI operator; the weights are shared.

    None for an operator with weights: it has learned them with those of its own detector.
    """
    changed, model, heads = (shallow(part) for part in (module, module.model, module.model.roi_heads))
    old: Any = heads.box_roi_pool
    channels: Any = model.backbone.out_channels
    pooler = build_pooler(roi, list(old.featmap_names), pooled_strides(module.model), channels)
    if any(True for _ in pooler.parameters()):
        return None
    heads.box_roi_pool = pooler.to(next(module.parameters()).device).eval()
    model.roi_heads = heads
    changed.model = model
    return changed


def shallow(module: Any) -> Any:
    """A copy of a module whose parts can be exchanged without a change of the original."""
    copied = copy.copy(module)
    copied._modules = dict(module._modules)
    return copied


def ramp_if_possible(roi: RoiConfig) -> dict[str, float | None]:
    """:func:`ramp`, or None for its numbers if an operator of the user's takes no maps of two channels in float64."""
    try:
        return {**ramp(roi)}
    except Exception:
        if not is_target(roi.kind):
            raise
        return {"offset": None, "shift_error": None}


def ramp(roi: RoiConfig, boxes: int = 500, cells: int = 64, stride: int = 16) -> dict[str, float]:
    """What an operator gives on a map that rises by 1 per cell: which positions it pools from, in cells of the map.

    Args:
        roi: the operator.
        boxes: random boxes of 1 to 30 cells, away from the border.
        cells: side of the map.
        stride: of the map.

    Returns:
        ``offset``: the mean distance from the centre of a bin to the position whose value it has (the value of a cell
        stands at its centre). ``shift_error``: if a box moves by a fraction of a cell, the pooled values should change
        by the same fraction; the root mean square of the difference. 0 is exact.
    """
    generator = torch.Generator().manual_seed(0)
    rise = torch.arange(cells, dtype=torch.float64) + 0.5
    maps = {"0": torch.stack([rise.expand(cells, cells), rise[:, None].expand(cells, cells)])[None].contiguous()}
    pooler = build_pooler(roi, ["0"], [stride], channels=2)
    size = 1 + 29 * torch.rand(boxes, 2, generator=generator, dtype=torch.float64)
    low = 1 + (cells - 3 - size) * torch.rand(boxes, 2, generator=generator, dtype=torch.float64)
    move = torch.rand(boxes, 1, generator=generator, dtype=torch.float64)

    def pooled(corner: Tensor) -> Tensor:
        rois = torch.cat([corner, corner + size], dim=1) * stride
        return pooler(maps, [rois], [(cells * stride, cells * stride)])

    before, after = pooled(low), pooled(low + move)
    wide = roi.output_size[1]
    x = low[:, :1] + size[:, :1] * (torch.arange(wide) + 0.5) / wide
    offset = before[:, 0].mean(dim=1) - x
    error = after - before - move[:, :, None, None]
    return {"offset": float(offset.mean()), "shift_error": float(error.square().mean().sqrt())}


# ---------------------------------------------------------------------------------------------- detectors
def shifted(image: Tensor, distance: float) -> Tensor:
    """An image [3, H, W] moved right and down by ``distance`` pixels, the border repeated.

    Interpolated with the cubic of Catmull and Rom, which reproduces parabolas and blurs little.
    """
    for axis in (1, 2):
        count = image.shape[axis]
        first = math.floor(-distance)
        f = -distance - first
        weights = ((-f + 2 * f**2 - f**3) / 2, (2 - 5 * f**2 + 3 * f**3) / 2, (f + 4 * f**2 - 3 * f**3) / 2,
                   (-(f**2) + f**3) / 2)  # fmt: skip
        pixels = torch.arange(count, device=image.device) + first
        moved = [image.index_select(axis, (pixels + tap).clamp(0, count - 1)) * w for tap, w in enumerate(weights, -1)]
        image = torch.stack(moved).sum(dim=0)
    return image.clamp(0, 1)


@torch.inference_mode()
def jitter(module: TrainedModel, samples: list[Any]) -> dict[str, list[float]]:
    """How much pooled features and class scores of the true boxes change when image and boxes move a little.

    Args:
        module: in eval mode.
        samples: (image, target) pairs.

    Returns:
        For each of :data:`SHIFTS`: ``pooled``, the mean length of the change of a box's pooled features, relative to
        their length; ``score``, the mean absolute change of the softmax score of the true class.
    """
    totals = torch.zeros(2, len(SHIFTS), dtype=torch.float64)
    boxes = 0
    for image, target in samples:
        if not len(target["boxes"]):
            continue
        pooled, scores = at_truth(module, image, target, 0.0)
        boxes += len(scores)
        for i, distance in enumerate(SHIFTS):
            moved, new = at_truth(module, image, target, distance)
            length = pooled.flatten(1).norm(dim=1).clamp(min=1e-12)
            totals[0, i] += ((moved - pooled).flatten(1).norm(dim=1) / length).double().sum().cpu()
            totals[1, i] += (new - scores).abs().double().sum().cpu()
    means = (totals / max(boxes, 1)).tolist()
    return {"pooled": means[0], "score": means[1]}


def at_truth(module: TrainedModel, image: Tensor, target: Any, distance: float) -> tuple[Tensor, Tensor]:
    """Pooled features [N, C, h, w] and scores [N] of the true classes at the true boxes of a moved image."""
    model: Any = module.model
    device = next(module.parameters()).device
    moved = shifted(image, distance).to(device)
    images, targets = model.transform([moved], [{"boxes": target["boxes"].to(device) + distance}])
    features = feature_maps(model, images.tensors)
    pooled = model.roi_heads.box_roi_pool(features, [targets[0]["boxes"]], images.image_sizes)
    logits, _ = model.roi_heads.box_predictor(model.roi_heads.box_head(pooled))
    labels = target["labels"].to(device)
    return pooled.float(), logits.float().softmax(dim=1)[torch.arange(len(labels), device=device), labels]


@torch.inference_mode()
def truth_as_proposals(module: TrainedModel, dataset: CocoDataset, count: int) -> Detections:
    """Detections in the first ``count`` images with the true boxes as proposals: the box head without the RPN."""
    model: Any = module.model
    device = next(module.parameters()).device
    parts = []
    for image, target in (dataset[i] for i in range(count)):
        images, targets = model.transform([image.to(device)], [{"boxes": target["boxes"].to(device)}])
        features = feature_maps(model, images.tensors)
        outputs, _ = model.roi_heads(features, [targets[0]["boxes"]], images.image_sizes)
        outputs = model.transform.postprocess(outputs, images.image_sizes, [tuple(image.shape[1:])])
        parts.append(Detections.from_model(outputs, [int(target["image_id"])], module.category_ids))
    return Detections.concat(parts)


def stored_diagnostics(study: Study) -> dict[str, Any]:
    """The diagnostics that are on disk; empty if there are none, or if they are of runs that are not in this study."""
    kept = read_json_or_empty(study.folder / FILE)
    made = {name for levels in kept.get("runs", {}).values() for name in levels.values()}
    return kept if made <= {cell.name for cell in study.cells} else {}

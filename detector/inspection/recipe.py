"""A training of minutes on a CPU that suits a data set: size of the input, maps, anchors and length from its boxes."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from detector.config.commands import command
from detector.config.composition import quote
from detector.config.configure import configure
from detector.config.schema import Config, ModelConfig, RoiConfig, to_dict
from detector.inspection.anchor_advice import AnchorStudy
from detector.inspection.anchor_fit import OVERLAP, resized_sizes, with_anchors
from detector.models.backbone import anchor_strides

BASE = "finetune_small"  # the recipe that is fitted to the data
SMALL, LARGE = 0.1, 0.9  # quantiles of the sides of the objects: a tenth are smaller, a tenth are larger
USUAL, FINEST, COARSEST = 8, 4, 32  # strides: the input is sized for the first; limits of the maps
CELLS, FEWEST = 2.5, 2  # of a map that a small object covers: the input is sized for so many; with fewer, a finer map
LOWEST, HIGHEST, MULTIPLE = 320, 800, 32  # limits of the short side of the input, pixels, and what it is a multiple of
LONGEST = 1333  # limit of the long side, pixels
PER_MAP = 2  # anchor sizes
INPUT = 250e6  # pixels of input that a training with the maps of BASE sees in less than five minutes of two CPU cores
CHANNELS = 64  # of the maps of a larger input than BASE has
CHEAPER = 0.5  # cost of a pixel with so few, and without gradients of the stages before the finest map
SEEN, EPOCHS = 800, 24  # images that a training sees at least, as often as they may come; otherwise epochs at most
UPDATES = {"data.batch_size": 2, "optim.base_batch": 2, "optim.lr": 0.0007}  # twice the steps for the same arithmetic
SECTIONS = ("seed", "model", "roi", "data", "augment", "optim", "trainer")  # of the configuration, for the command


@dataclass(frozen=True)
class Recipe:
    """A training that suits the data.

    Attributes:
        arguments: of ``scripts/train.py``.
        reasons: sentences on why.
    """

    arguments: list[str]
    reasons: list[str]

    @property
    def command(self) -> str:
        """The command, an argument a line."""
        return " \\\n    ".join([command("train"), *map(shlex.quote, self.arguments)])


def derive(config: Config, study: AnchorStudy, sizes: np.ndarray) -> Recipe:
    """The recipe :data:`BASE`, fitted to the data that were inspected.

    What was given with ``data=coco`` or with the recipe itself stays, but for the keys that are derived here.

    Args:
        config: that was inspected.
        study: of the training boxes.
        sizes: ``[M, 2]``, height and width in pixels of all training images; 0 where the file does not say.
    """
    base: Config = configure(Config, {"experiment": BASE})
    recipe, plain = flat(to_dict(base)), flat(to_dict(configure(Config, {"data": "coco"})))
    inspected = flat(to_dict(config))
    # What was given is what differs from the one that it was given with, which it is like.
    own = min(({k: v for k, v in inspected.items() if v != known.get(k)} for known in (plain, recipe)), key=len)
    model, why_size = fit_size(study, replace(base.model, name=config.model.name))
    model, why_maps = fit_maps(AnchorStudy(study.boxes, study.sizes, model), config.roi)
    fit = AnchorStudy(study.boxes, study.sizes, model).proposed
    cheaper = model.name == "fpn" and model.min_size[0] > LOWEST and own.get("model.weights") != "none"
    saving = {"model.fpn_channels": CHANNELS, "model.trainable_stages": len(model.fpn_strides)} if cheaper else {}
    wanted = {**saving, **(UPDATES if config.optim.name == base.optim.name else {}), **own}
    steps, why_steps = fit_length(sizes, model, wanted.get("data.batch_size", base.data.batch_size), bool(saving))
    derived = {
        "model.min_size": model.min_size,
        "model.max_size": model.max_size,
        "model.fpn_strides": model.fpn_strides,
        "model.anchors.sizes": fit.sizes,
        "model.anchors.aspect_ratios": fit.aspect_ratios,
        "roi.canonical_scale": max(config.roi.output_size) * 2 ** max(config.roi.canonical_level - 1, 0),
        "trainer.max_steps": steps,
        "trainer.eval_every": 0,
    }
    why_anchors = f"Anchors: {fit.recall(OVERLAP):.0%} of the training boxes have one of IoU {OVERLAP:g} or more."
    wanted |= derived
    changed = [
        key for key in recipe if key.partition(".")[0] in SECTIONS and wanted.get(key, recipe[key]) != recipe[key]
    ]
    arguments = [f"experiment={BASE}", *(f"{key}={in_hydras_grammar(wanted[key])}" for key in changed)]
    why_saving = (
        f"More than {LOWEST} pixels are paid for by {CHANNELS} channels, and by stages of the network that stay as "
        "they come: all before the finest map."
    )
    return Recipe(arguments, [why_size, *([why_saving] if saving else []), why_maps, why_anchors, why_steps])


def fit_size(study: AnchorStudy, model: ModelConfig) -> tuple[ModelConfig, str]:
    """``model`` with an input in which a small object covers :data:`CELLS` cells of its map, and a sentence.

    No input is larger than half of the pictures are, as they have no more to show.
    """
    stride = USUAL if model.name == "fpn" else anchor_strides(model)[0]
    short = study.sizes.min(axis=1)
    sides = np.sqrt((study.boxes[:, 2:] - study.boxes[:, :2]).prod(axis=1))
    small, pictures = float(np.quantile(sides / short, SMALL)), float(np.median(short))
    wanted = min(CELLS * stride / small, pictures)
    side = math.ceil(round(wanted / MULTIPLE, 6)) * MULTIPLE
    side = min(max(side, LOWEST), HIGHEST)
    why = (
        f"Input of {side} pixels (short side): a small object, of {small:.1%} of the short side, covers "
        f"{small * side / stride:.1f} cells of the map of stride {stride}."
    )
    return replace(model, min_size=[side], max_size=min(2 * side, LONGEST)), why


def fit_maps(study: AnchorStudy, roi: RoiConfig) -> tuple[ModelConfig, str]:
    """The model of ``study`` with the strides that suit its objects and a ladder of anchors on them, and a sentence.

    The finest is :data:`USUAL`; a finer one if a small object covers fewer than :data:`FEWEST` cells; a coarser one if
    it covers a cell for each bin of ``roi`` even there. The coarsest is the first on which a large object covers no
    more cells than there are bins, and not the finest, to which it adds its wider view.
    """
    model, bins = study.model, max(roi.output_size)
    small, large = np.quantile(study.objects.side, (SMALL, LARGE)).tolist()
    strides = anchor_strides(model)
    if model.name == "fpn":
        finest = FINEST if small < FEWEST * USUAL else 2 * USUAL if small >= bins * 2 * USUAL else USUAL
        strides = [finest, 2 * finest]
        while large > bins * strides[-1] and strides[-1] < COARSEST:
            strides.append(2 * strides[-1])
    each = PER_MAP if len(strides) > 1 else 2 * PER_MAP
    ladder = [[float(stride * (2 + step)) for step in range(each)] for stride in strides]
    why = (
        f"Stride {', '.join(map(str, strides))}: small and large objects, of {small:.0f} and {large:.0f} pixels in the "
        f"input, cover {small / strides[0]:.1f} cells of the finest and {large / strides[-1]:.1f} of the coarsest map."
    )
    return with_anchors(replace(model, fpn_strides=strides), ladder, model.anchors.aspect_ratios), why


def fit_length(sizes: np.ndarray, model: ModelConfig, batch: int, cheaper: bool) -> tuple[int, str]:
    """Steps of ``batch`` images that cost as much as :data:`INPUT` pixels of input, and a sentence.

    The arithmetic of the pyramid, which is most of all, grows with the cells of its finest map.
    """
    budget = INPUT / (CHEAPER if cheaper else 1) * min(anchor_strides(model)[0] / USUAL, 1)
    known = np.asarray(sizes[(sizes > 0).all(axis=1)], dtype=np.float64)
    pixels = float(resized_sizes(known, model).prod(axis=1).mean())
    steps = math.ceil(max(min(budget / pixels, EPOCHS * len(sizes)), SEEN) / batch)
    epochs = steps * batch / len(sizes)
    seen = f"{epochs:.1f} epochs, {steps * batch * pixels / 1e6:.0f} million pixels of input"
    return steps, f"{steps} steps of {batch} images: {seen}."


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys and their values. A dict with ``_target_`` is a value."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        inner = isinstance(value, Mapping) and "_target_" not in value
        found |= flat(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value}
    return found


def in_hydras_grammar(value: Any) -> str:
    """``value`` as the command line takes it."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{in_hydras_grammar(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return f"[{','.join(map(in_hydras_grammar, value))}]"
    if isinstance(value, str):
        return quote(value)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else f"{value:.10g}"

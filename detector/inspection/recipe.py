"""A training of minutes on a CPU that suits a data set: size of the input, maps, anchors and length from its boxes."""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from detector.config.checks import pairs
from detector.config.commands import command
from detector.config.composition import hydra_value
from detector.config.configure import configure
from detector.config.schema import Config, ModelConfig, RoiConfig, to_dict
from detector.exceptions import ConfigError
from detector.inspection.anchor_advice import AnchorStudy
from detector.inspection.anchor_fit import OVERLAP, resized_sizes, with_anchors
from detector.models.backbone import anchor_strides
from detector.models.initial.build import starts_from_detector

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
LENGTHS = ("trainer.max_steps", "trainer.epochs", "trainer.eval_every", "trainer.eval_epochs")
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


def derive(config: Config, study: AnchorStudy, sizes: np.ndarray, given: Collection[str] = ()) -> Recipe:
    """The recipe :data:`BASE`, fitted to the data that were inspected.

    What was given stays. So does what a choice of a group, or a recipe of the user's, sets otherwise than ``data=coco``
    or the recipe itself, but for the keys that are derived here. Weights of a detector keep its layers and anchors.

    Args:
        config: that was inspected.
        study: of the training boxes.
        sizes: ``[M, 2]``, height and width in pixels of all training images; 0 where the file does not say.
        given: keys, and groups, that the user set.

    Raises:
        WeightsError: ``model.weights`` cannot be read, or is a detector with other shapes than ``config`` has.
    """
    base: Config = configure(Config, {"experiment": BASE})
    coco: Config = configure(Config, {"data": "coco"})
    recipe, plain, inspected = (dict(pairs(to_dict(known), Config)) for known in (base, coco, config))
    fixed = {key for key in recipe if any(_is_given(key, name) for name in given)}
    # What a group sets is what differs from the one that it was given with, which it is like.
    own = min(({k: v for k, v in inspected.items() if v != known.get(k)} for known in (plain, recipe)), key=len)
    trained = starts_from_detector(config)
    own |= {key: inspected[key] for key in recipe if key in fixed or (trained and key.startswith(("model.", "roi.")))}
    own = {key: value for key, value in own.items() if key in fixed or key not in LENGTHS}
    model, reasons = fit_model(config, study, base.model, fixed, trained)
    saving = model.name == "fpn" and model.min_size[0] > LOWEST and own.get("model.weights") != "none" and not trained
    cheap = {"model.fpn_channels": CHANNELS, "model.trainable_stages": len(model.fpn_strides)}
    updates = config.optim.name == base.optim.name and not own.keys() & UPDATES.keys()  # a rate is for its batch
    wanted = {**recipe, **(cheap if saving else {}), **(UPDATES if updates else {}), **own}
    model = replace(model, fpn_channels=wanted["model.fpn_channels"], trainable_stages=wanted["model.trainable_stages"])
    if is_cheap(model):
        reasons.append(
            f"Pixels are paid for by {model.fpn_channels} channels, and by stages of the network that stay as they "
            "come: all before the finest map."
        )
    scale = max(config.roi.output_size) * 2 ** max(config.roi.canonical_level - 1, 0)
    wanted |= {
        "model.min_size": model.min_size,
        "model.max_size": model.max_size,
        "model.fpn_strides": model.fpn_strides,
        "model.anchors.sizes": model.anchors.sizes,
        "model.anchors.aspect_ratios": model.anchors.aspect_ratios,
        "roi.canonical_scale": config.roi.canonical_scale if trained or "roi.canonical_scale" in fixed else scale,
    }
    reasons += set_length(wanted, fixed, sizes, model)
    arguments = [f"experiment={BASE}"]
    for key in (key for key in recipe if key.partition(".")[0] in SECTIONS or key in fixed):
        try:
            arguments += [f"{key}={hydra_value(wanted[key])}"] if wanted[key] != recipe[key] else []
        except ConfigError as error:
            reasons.append(f"{key} is not among the arguments; give it in a recipe of your own. {error}.")
    return Recipe(arguments, reasons)


def _is_given(key: str, given: str) -> bool:
    """Whether a key is given: by itself, with the keys around it, or by a part of its value."""
    return key == given or (key.startswith(f"{given}.") and "." in given) or given.startswith(f"{key}.")


def fit_model(
    config: Config, study: AnchorStudy, base: ModelConfig, fixed: set[str], trained: bool
) -> tuple[ModelConfig, list[str]]:
    """The model with the size of the input, the maps and the anchors that suit the data, and sentences.

    Args:
        config: that was inspected.
        study: of the training boxes.
        base: the model to start from.
        fixed: keys that stay as they are in ``config``.
        trained: whether maps and anchors stay as they are, as the weights are those of a detector.
    """
    given, reasons = config.model, []
    model = given if trained else replace(base, name=given.name)
    if fixed & {"model.min_size", "model.max_size"}:
        model = replace(model, min_size=given.min_size, max_size=given.max_size)
    else:
        model, why = fit_size(study, model)
        reasons.append(why)
    own_anchors = trained or fixed & {"model.anchors.sizes", "model.anchors.aspect_ratios"}
    if own_anchors or "model.fpn_strides" in fixed:
        model = replace(model, fpn_strides=given.fpn_strides)
    if own_anchors:
        model = replace(model, anchors=given.anchors)
        fit = AnchorStudy(study.boxes, study.sizes, model).configured
    else:
        strides = given.fpn_strides if "model.fpn_strides" in fixed else []
        model, why = fit_maps(AnchorStudy(study.boxes, study.sizes, model), config.roi, strides)
        reasons.append(why)
        fit = AnchorStudy(study.boxes, study.sizes, model).proposed
        model = with_anchors(model, fit.sizes, fit.aspect_ratios)
    reasons.append(f"Anchors: {fit.recall(OVERLAP):.0%} of the training boxes have one of IoU {OVERLAP:g} or more.")
    return model, reasons


def set_length(wanted: dict[str, Any], fixed: set[str], sizes: np.ndarray, model: ModelConfig) -> list[str]:
    """Set length and evaluations in ``wanted``, the keys of the training, where they are not ``fixed``; sentences."""
    images = math.prod(
        wanted[key] for key in ("data.batch_size", "optim.accumulate", "trainer.devices", "trainer.num_nodes")
    )
    wanted |= {key: 0 for key in LENGTHS if key not in fixed and key != "trainer.max_steps"}
    reasons = []
    if wanted["trainer.epochs"]:
        steps = max(1, round(wanted["trainer.epochs"] * len(sizes) / images))
    elif "trainer.max_steps" in fixed:
        steps = wanted["trainer.max_steps"]
    else:
        steps, why = fit_length(sizes, model, images)
        wanted["trainer.max_steps"] = steps
        reasons.append(why)
    if wanted["optim.warmup_steps"] >= steps:
        reasons.append(f"The rate rises in half of the {steps} steps, as optim.warmup_steps has to be less.")
        wanted["optim.warmup_steps"] = steps // 2
    return reasons


def fit_size(study: AnchorStudy, model: ModelConfig) -> tuple[ModelConfig, str]:
    """``model`` with an input in which a small object covers :data:`CELLS` cells of its map, and a sentence.

    No input is larger than the pictures are in the median, as they have no more to show.
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


def fit_maps(study: AnchorStudy, roi: RoiConfig, given: Sequence[int] = ()) -> tuple[ModelConfig, str]:
    """The model of ``study`` with the strides that suit its objects and a ladder of anchors on them, and a sentence.

    The finest is :data:`USUAL`; a finer one if a small object covers fewer than :data:`FEWEST` cells; a coarser one if
    it covers a cell for each bin of ``roi`` even there. The coarsest is the first on which a large object covers no
    more cells than there are bins, and not the finest, to which it adds its wider view. ``given`` strides stay.
    """
    model, bins = study.model, max(roi.output_size)
    small, large = np.quantile(study.objects.side, (SMALL, LARGE)).tolist()
    strides = list(given) or anchor_strides(model)
    if model.name == "fpn" and not given:
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


def is_cheap(model: ModelConfig) -> bool:
    """Whether a pixel costs :data:`CHEAPER`: few channels, and no gradients of the stages before the finest map."""
    few = model.fpn_channels <= CHANNELS and model.trainable_stages <= len(model.fpn_strides)
    return model.name == "fpn" and few


def fit_length(sizes: np.ndarray, model: ModelConfig, batch: int) -> tuple[int, str]:
    """Steps of ``batch`` images that cost as much as :data:`INPUT` pixels of input, and a sentence.

    The arithmetic of the pyramid, which is most of all, grows with the cells of its finest map.
    """
    budget = INPUT / (CHEAPER if is_cheap(model) else 1) * min(anchor_strides(model)[0] / USUAL, 1)
    known = np.asarray(sizes[(sizes > 0).all(axis=1)], dtype=np.float64)
    pixels = float(resized_sizes(known, model).prod(axis=1).mean())
    steps = math.ceil(max(min(budget / pixels, EPOCHS * len(sizes)), SEEN) / batch)
    epochs = steps * batch / len(sizes)
    seen = f"{epochs:.1f} epochs, {steps * batch * pixels / 1e6:.0f} million pixels of input"
    return steps, f"{steps} steps of {batch} images: {seen}."

"""The weights of a trained detector put into a new one: all that has the same shape, and the rows of classes by map."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchvision.models import detection, get_model, list_models
from torchvision.models.detection import FasterRCNN

from detector.config.checks import flat
from detector.config.composition import hydra_value
from detector.config.schema import Config, to_dict
from detector.exceptions import WeightsError
from detector.models.initial.class_rows import ClassRows
from detector.models.initial.kinds import BOXES, CLASSES, InitialDetector
from detector.models.initial.tensors import mismatch

COUNTER = "num_batches_tracked"  # older files lack it, and frozen norm has none; no weight depends on it
SHAPING = (
    *("model.name", "model.backbone", "model.norm", "model.fpn_strides", "model.fpn_channels", "model.fpn_norm"),
    *("model.anchors.sizes", "model.anchors.aspect_ratios", "model.rpn.conv_depth", "model.head.conv_depth"),
    *("model.head.conv_channels", "model.head.conv_norm", "model.head.width", "model.head.class_agnostic"),
    "roi.output_size",
)  # keys that shapes and names of weights follow from
MEANING = (
    *("model.image_mean", "model.image_std", "model.norm_eps", "model.fpn_strides", "model.anchors.sizes"),
    "model.anchors.aspect_ratios",
    *("roi.kind", "roi.sampling_ratio", "roi.aligned", "roi.mode", "roi.canonical_scale", "roi.canonical_level"),
)  # keys with which the same weights find something else


def transfer(model: FasterRCNN, initial: InitialDetector, rows: ClassRows, config: Config) -> None:
    """Copy the weights of ``initial`` into ``model``, those of classes as ``rows`` says.

    Background, objectness, box regression and everything else come along. A new class keeps the random rows of
    ``model``, or gets the mean of the old ones with ``model.new_classes=mean``: of those that have a name, if any has.

    Args:
        model: torchvision's ``FasterRCNN`` for the classes ``rows.new``.
        initial: the detector to start from.
        rows: where the rows of the classes come from.
        config: that ``model`` was built with.

    Raises:
        WeightsError: a tensor is missing, too many or of another shape; says which, and which keys would make it fit.
    """
    own = {key: value for key, value in model.state_dict().items() if not key.endswith(COUNTER)}
    state = {key: value for key, value in initial.state.items() if not key.endswith(COUNTER)}
    # Class layers differ in the number of their rows: where those of one class fit, all do.
    fitting = {}
    for key in (key for key in own if key.startswith((CLASSES, BOXES)) and key in state):
        old, new = (_by_class(key, *part) for part in ((state[key], rows.old), (own[key], rows.new)))
        if old.shape[1:] == new.shape[1:] and (len(old) == 1) == (len(new) == 1):
            fitting[key] = _class_rows(old, new, rows, config.model.new_classes == "mean").reshape(own[key].shape)
    state |= fitting
    problem = mismatch(state, own)
    if problem:
        remedy = "; ".join(_remedies(initial, state, own, config))
        raise WeightsError(
            f"model.weights={initial.source}: this detector does not fit the model of the configuration. {problem}. "
            f"{'What fits: ' + remedy if remedy else 'It is of another architecture: give its model'}"
        )
    model.load_state_dict(state, strict=False)


def changes(initial: InitialDetector, config: Config, model: FasterRCNN) -> list[str]:
    """A sentence on keys that had other values when the detector was trained, and that ``model`` now has otherwise."""
    before, now = flat(initial.trained), flat(to_dict(config))
    for key, used in (("image_mean", model.transform.image_mean), ("image_std", model.transform.image_std)):
        if before.get(f"model.{key}"):  # an empty list stands for those of the network
            now[f"model.{key}"] = list(used)
    differing = [f"{key}={hydra_value(before[key])}" for key in MEANING if before.get(key, now[key]) != now[key]]
    if not differing:
        return []
    return [f"the detector was trained with other keys, and knows nothing of these: {' '.join(differing)}"]


def other_shapes(initial: InitialDetector, config: Config) -> str:
    """The keys that shapes follow from, as arguments, where ``initial`` was trained with others than ``config`` has; ""
    if there are none, or it is not known."""
    before, now = flat(initial.trained), flat(to_dict(config))
    return " ".join(f"{key}={hydra_value(before[key])}" for key in SHAPING if before.get(key, now[key]) != now[key])


def torchvision_detectors(state: Mapping[str, Tensor]) -> list[str]:
    """torchvision's functions that build a Faster R-CNN whose tensors have the names of ``state``."""
    names = {key for key in state if not key.endswith(COUNTER)}
    found = []
    for builder in list_models(detection, include="fasterrcnn_*"):
        with torch.device("meta"):
            layers = get_model(builder, weights=None, weights_backbone=None).state_dict()
        if names == {key for key in layers if not key.endswith(COUNTER)}:
            found.append(builder)
    return found


def _by_class(key: str, value: Tensor, class_names: Sequence[str]) -> Tensor:
    """A tensor [N, ...] of a class layer as [classes, N / classes, ...], background first.

    As [1, N, ...] if all classes share it, or if it has no rows for so many.
    """
    classes, shared = len(class_names) + 1, key.startswith(BOXES) and len(value) == 4
    return value.reshape(1 if shared or len(value) % classes else classes, -1, *value.shape[1:])


def _class_rows(old: Tensor, own: Tensor, rows: ClassRows, mean: bool) -> Tensor:
    """What :func:`_by_class` returns for the new classes, from that of the old ones and that of the new model."""
    if len(own) == 1:
        return old
    new = own.clone()
    new[0] = old[0]
    named = [label for label, name in enumerate(rows.old, 1) if name]  # published detectors have rows of no class
    known = old[named or slice(1, None)]
    for label, sources in enumerate(rows.sources, 1):
        if sources:
            new[label] = old[[position + 1 for position in sources]].mean(dim=0)
        elif mean:
            new[label] = known.mean(dim=0)
    return new


def _remedies(
    initial: InitialDetector, state: Mapping[str, Tensor], own: Mapping[str, Tensor], config: Config
) -> list[str]:
    """Keys with which the model would have the shapes of ``state``, as far as they can be told."""
    if initial.trained:
        return [other_shapes(initial, config)]
    built = torchvision_detectors(state)
    if built and config.model.published not in built:
        return [" or ".join(f"model={name.removeprefix('fasterrcnn_')}" for name in built)]
    shape = lambda tensors, key: list(tensors[key].shape) if key in tensors else []
    found = []
    fc6, logits = "roi_heads.box_head.fc6.weight", "rpn.head.cls_logits.weight"
    if shape(state, fc6)[:1] != shape(own, fc6)[:1] and shape(state, fc6):
        found.append(f"model.head.width={shape(state, fc6)[0]}")
    # Objectness has as many inputs as the maps have channels.
    if shape(state, logits)[1:2] != shape(own, logits)[1:2] and shape(state, logits):
        found.append(f"model.fpn_channels={shape(state, logits)[1]}")
    if all(shape(tensors, key) for tensors in (state, own) for key in (fc6, logits)):
        theirs, ours = (shape(t, fc6)[1] // shape(t, logits)[1] for t in (state, own))
        if theirs != ours:
            side = math.isqrt(theirs)
            found.append(
                f"roi.output_size=[{side},{side}]" if side**2 == theirs else f"a roi.output_size of {theirs} bins"
            )
    for key, layer in (("model.rpn.conv_depth", "rpn.head.conv"), ("model.head.conv_depth", "roi_heads.box_head")):
        depths = [sum(f"{layer}.{i}.0.weight" in t for i in range(16)) for t in (state, own)]
        if depths[0] != depths[1]:
            found.append(f"{key}={depths[0]}")
    if shape(state, logits)[:1] != shape(own, logits)[:1] and shape(state, logits):
        found.append(
            f"model.anchors with {shape(state, logits)[0]} for each place (sizes of a map times aspect_ratios)"
        )
    agnostic = [len(t[f"{BOXES}.bias"]) == 4 if f"{BOXES}.bias" in t else None for t in (state, own)]
    if agnostic[0] is not None and agnostic[0] != agnostic[1]:
        found.append(f"model.head.class_agnostic={str(agnostic[0]).lower()}")
    if any("running_mean" in key for key in state) and not any("running_mean" in key for key in own):
        found.append("model.norm=batch, frozen or sync")
    return found

"""What a file of weights is, found out from its keys: a backbone, a detector, or a checkpoint of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor
from torchvision.models import detection, get_model_weights, list_models

from detector.exceptions import WeightsError
from detector.models.downloads import downloading
from detector.models.initial.files import local_file
from detector.models.initial.tensors import LISTED, read_tensors
from detector.words import counted

PREDICTOR = "roi_heads.box_predictor."
CLASSES, BOXES = f"{PREDICTOR}cls_score", f"{PREDICTOR}bbox_pred"
# What DataParallel, torch.compile and a LightningModule put before names.
WRAPPERS = ("module.", "_orig_mod.", "model.")
AVERAGED = ("model_ema", "ema", "state_dict_ema", "ema_state_dict")  # where training scripts keep averaged weights
INSIDE = (*AVERAGED, "state_dict", "model", "model_state_dict")  # and the others; averaged ones are the better start
COUNT = "n_averaged"  # a number that torch's AveragedModel has beside the weights
BRANCHES = ("roi_heads.mask_", "roi_heads.keypoint_")  # of torchvision's Mask and Keypoint R-CNN
OLD_NAME = re.compile(r"(rpn\.head\.conv|backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)")
# Published weights that are used with batch norm that adds nothing to the variances: a file needs model.norm_eps=0.
WITHOUT_EPS = tuple(f"{kind}_ResNet50_FPN_Weights.COCO_V1" for kind in ("FasterRCNN", "MaskRCNN", "KeypointRCNN"))
KINDS = ("FasterRCNN_", "MaskRCNN_", "KeypointRCNN_")  # enums of detectors that have the layers of a Faster R-CNN
NOTHING = "N/A"  # torchvision's name of the rows that no class of COCO has


@dataclass(frozen=True)
class InitialDetector:
    """The weights of a detector, under the names that torchvision's ``FasterRCNN`` gives them.

    Attributes:
        source: what ``model.weights`` says.
        said: what it was found to be, in words.
        state: the weights, on the CPU, without masks and keypoints.
        class_names: of the rows 1..K of the class layer; "" for one that is not known. Row 0 is the background.
        category_ids: their category ids in the data that it was trained on.
        trained: the configuration that it was trained with; empty if that is not known.
    """

    source: str
    said: str
    state: dict[str, Tensor]
    class_names: list[str]
    category_ids: list[int]
    trained: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BackboneFile:
    """The weights of a backbone, or of a whole classification network.

    Attributes:
        path: the file.
        states: the weights, on the CPU, under the names of the file, and under those without what wrappers may have put
            before all of them, one prefix less in each. A network may have such a prefix itself, as in ``self.model``.
        told: where in the file they are, in words.
    """

    path: Path
    states: list[dict[str, Tensor]]
    told: str = ""


def read_initial(weights: str) -> InitialDetector | BackboneFile:
    """Read a file of weights without running code from it, and find out what it is.

    Args:
        weights: a path, the folder of a run, or an address with its hash; see :func:`local_file`.

    Raises:
        WeightsError: it cannot be found or read, or holds something else than named tensors.
    """
    path = local_file(weights)
    content, told = read_tensors(path, f"model.weights={weights}"), ""
    facts = content.get("hyper_parameters") if isinstance(content, dict) else None
    facts = facts if isinstance(facts, dict) else {}
    if not is_state(content) and isinstance(content, dict):
        inside = [key for key in INSIDE if is_state(content.get(key))]
        if inside:
            content, told = content[inside[0]], f" under {inside[0]!r}"
            if inside[0] in AVERAGED and len(inside) > 1:
                told += f" (averaged weights; {', '.join(map(repr, inside[1:]))} is not used)"
    if not is_state(content):
        raise WeightsError(
            f"model.weights={weights}: {holding(content)}, not a dict of named tensors, neither by itself nor under "
            f"{', '.join(map(repr, INSIDE))}"
        )
    named = bool(facts.get("class_names"))
    forms = unwrapped(content)
    state = {renamed(key): value for key, value in forms[-1].items()}
    if f"{CLASSES}.weight" not in state:
        if named:
            raise WeightsError(f"model.weights={weights}: the checkpoint of a run without the weights of a detector")
        return BackboneFile(path, forms, told)
    if named:
        check_facts(facts, weights)
        names, config = facts["class_names"], facts.get("config") or {}
        model = config.get("model", {}).get("name", "detector")
        said = f"{path} is the checkpoint of a run: {model} with {counted(len(names), 'class', 'classes')}"
        return detector_of(weights, said, state, ["", *names], facts.get("category_ids"), config)
    rows = len(state[f"{CLASSES}.weight"])
    coco = list(detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"])
    known = coco if rows == len(coco) else [""] * rows
    classes = f"{counted(rows - 1, 'class', 'classes')} that it does not name"
    if known is coco:
        classes = "the 91 rows of COCO's classes as torchvision orders them"
    return detector_of(weights, f"{path} is a detector's state dict{told} with {classes}", state, known)


def check_facts(facts: Mapping[str, Any], weights: str) -> None:
    """Refuse facts on a run that are not of the types, and not as many, as a checkpoint of ours has them.

    Raises:
        WeightsError: names the first that is not.
    """
    names, ids, config = facts["class_names"], facts.get("category_ids"), facts.get("config")
    wrong = ""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        wrong = "class_names is no list of names"
    elif ids is not None and not (isinstance(ids, list) and all(type(category) is int for category in ids)):
        wrong = "category_ids is no list of whole numbers"
    elif ids and len(ids) != len(names):
        wrong = (
            f"category_ids has {counted(len(ids), 'entry', 'entries')} for {counted(len(names), 'class', 'classes')}"
        )
    elif config and not (isinstance(config, dict) and all(isinstance(key, str) for key in config)):
        wrong = "config is no dict of keys"
    elif config and not isinstance(config.get("model", {}), dict):
        wrong = "config.model is no dict of keys"
    if wrong:
        raise WeightsError(
            f"model.weights={weights}: hyper_parameters, which say what the run was, are damaged or another program's: "
            f"{wrong}. Give the weights alone, as torch.save(content['state_dict'], FILE)"
        )


def detector_of(
    source: str,
    said: str,
    state: dict[str, Tensor],
    names: list[str],
    ids: list[int] | None = None,
    trained: dict[str, Any] | None = None,
) -> InitialDetector:
    """A detector from its weights; ``names`` are those of all rows, that of the background included."""
    rows = len(state[f"{CLASSES}.weight"])
    if rows != len(names):
        raise WeightsError(
            f"model.weights={source}: {CLASSES}.weight has {counted(rows, 'row')}, for background and "
            f"{counted(len(names) - 1, 'class', 'classes')}: they do not belong together"
        )
    left = sorted(key for key in state if key.startswith(BRANCHES))
    if left:
        said += f"; {len(left)} tensors of masks or keypoints are not used ({', '.join(left[:2])}, ...)"
    kept = {key: value for key, value in state.items() if key not in left}
    known = ["" if name == NOTHING else name for name in names[1:]]
    return InitialDetector(source, said, kept, known, list(ids or range(1, rows)), trained or {})


def published_detector(weights: str, builder: str) -> InitialDetector | None:
    """torchvision's published weights of a detector; None if ``weights`` does not name such.

    Args:
        weights: as for :func:`published_entry`.
        builder: as there.

    Raises:
        WeightsError: as there; the download fails.
    """
    entry = published_entry(weights, builder)
    if entry is None:
        return None
    with downloading(weights, entry.url, "that file elsewhere and give it", " model.norm_eps=0" * without_eps(entry)):
        state = dict(entry.get_state_dict(progress=False, check_hash=True))
    classes: list[str] = list(entry.meta["categories"])
    known = counted(len(classes) - classes.count(NOTHING) - 1, "class", "classes")
    said = f"torchvision's {entry} with {known}"
    return detector_of(weights, said, {renamed(key): value for key, value in state.items()}, classes)


def published_entry(weights: str, builder: str) -> Any:
    """The member of torchvision's enum that ``weights`` names; None if it names no detector. Nothing is downloaded.

    Args:
        weights: a member of an enum such as ``FasterRCNN_ResNet50_FPN_Weights.COCO_V1``, or its last part.
        builder: ``model.published``, torchvision's function that builds the detector, which says the enum of a last
            part; "" for a model that is none of torchvision's.

    Raises:
        WeightsError: the enum has no such member, or is that of another kind of detector.
    """
    enum, _, member = weights.rpartition(".")
    entries = enums().get(enum)
    if not enum and member in published_names(builder):
        entries = get_model_weights(builder)
    if entries is None:
        return None
    if not entries.__name__.startswith(KINDS):
        raise WeightsError(
            f"model.weights={weights}: this detector of torchvision is no Faster R-CNN, and its layers are others. "
            f"There are {', '.join(name for name in enums() if name.startswith(KINDS))}"
        )
    if member not in entries.__members__:
        names = ", ".join(f"{entries.__name__}.{name}" for name in entries.__members__)
        raise WeightsError(f"model.weights={weights}: torchvision has {names}")
    return entries[member]


def enums() -> dict[str, Any]:
    """torchvision's enums of weights of detectors, by name."""
    return {get_model_weights(name).__name__: get_model_weights(name) for name in list_models(detection)}


def without_eps(entry: Any) -> bool:
    """Whether published weights are used with batch norm that adds nothing to the variances."""
    return str(entry) in WITHOUT_EPS


def published_names(builder: str) -> list[str]:
    """Names of torchvision's weights of a detector, as ``COCO_V1``; none for a model that is none of its detectors."""
    return [entry.name for entry in get_model_weights(builder)] if builder in list_models(detection) else []


def is_state(content: Any) -> bool:
    """Whether ``content`` is a dict of tensors by name, and not an empty one."""
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())
    )


def holding(content: Any) -> str:
    """What a file holds, in words."""
    if not isinstance(content, dict):
        return f"holds {type(content).__name__}"
    keys = [str(key) for key in content]
    return f"holds a dict with {', '.join(keys[:LISTED]) or 'nothing'}{', ...' if len(keys) > LISTED else ''}"


def unwrapped(state: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """``state``, and what it is with one prefix less that wrappers of modules put before all names, until none is."""
    if COUNT in state and not state[COUNT].ndim:
        state = {key: value for key, value in state.items() if key != COUNT}
    for prefix in WRAPPERS:
        if state and all(key.startswith(prefix) for key in state):
            return [dict(state), *unwrapped({key.removeprefix(prefix): value for key, value in state.items()})]
    return [dict(state)]


def renamed(key: str) -> str:
    """The name that torchvision gives a weight today; before 0.13 the layers of pyramid and RPN had shorter ones."""
    found = OLD_NAME.fullmatch(key)
    return f"{found[1]}{'.0.0' if found[1] == 'rpn.head.conv' else '.0'}.{found[2]}" if found else key

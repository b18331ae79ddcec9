"""A detector with its initial weights, and what they are, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torchvision.models.detection import FasterRCNN

from detector.config.checks import is_target
from detector.config.schema import Config, ModelConfig
from detector.exceptions import ConfigError, WeightsError
from detector.models.catalogue import full_name
from detector.models.faster_rcnn import build_model
from detector.models.initial.class_rows import ClassRows, match_classes
from detector.models.initial.files import is_file
from detector.models.initial.kinds import (
    BackboneFile,
    InitialDetector,
    enums,
    published_detector,
    published_entry,
    read_initial,
    without_eps,
)
from detector.models.initial.transfer import changes, other_shapes, transfer
from detector.models.weights import check_weights


@dataclass
class Initialised:
    """A detector with its initial weights.

    Attributes:
        model: torchvision's ``FasterRCNN``.
        class_names: of its labels 1..K: those of the data, and behind them those that were kept.
        category_ids: their category ids, all of them different.
        rows: where the rows of classes come from; None if the start is no trained detector.
        said: lines on what the start is.
    """

    model: FasterRCNN
    class_names: list[str]
    category_ids: list[int]
    rows: ClassRows | None = None
    said: list[str] = field(default_factory=list)


def check_initial(config: Config) -> None:
    """Refuse what :func:`build_initialised` will not find; nothing is read or downloaded.

    Raises:
        ConfigError: classes are to be carried over from what is no trained detector.
        WeightsError: there is no such file or name, they are of another model, or an address has no hash.
    """
    if not is_file(config.model.weights) and _published(config) is not None:
        return
    check_weights(config.model)
    if not is_file(config.model.weights):
        _check_no_classes(config)


def find_detector(config: Config) -> InitialDetector | BackboneFile | None:
    """What ``model.weights`` is; None for a name of weights of the backbone, or none at all.

    Raises:
        WeightsError: it cannot be read or downloaded, or is of another model.
    """
    weights = config.model.weights
    if is_file(weights):
        return read_initial(weights)
    return published_detector(weights, config.model.published) if _published(config) is not None else None


def starts_from_detector(config: Config) -> bool:
    """Whether ``model.weights`` is a trained detector. A file is read; published weights are not downloaded.

    Raises:
        WeightsError: it cannot be read, or was trained with keys that give other shapes.
    """
    weights = config.model.weights
    if not is_file(weights):
        return _published(config) is not None
    initial = read_initial(weights)
    if not isinstance(initial, InitialDetector):
        return False
    if other := other_shapes(initial, config):
        raise WeightsError(f"model.weights={weights}: this detector does not fit the model. What fits: {other}")
    return True


def build_initialised(config: Config, class_names: Sequence[str], category_ids: Sequence[int]) -> Initialised:
    """Build the detector of a configuration with the weights that ``model.weights`` names.

    Args:
        config: ``model`` and ``roi`` are used.
        class_names: of the classes of the data.
        category_ids: their category ids.

    Raises:
        ConfigError: keys that do not go together, or a class in ``model.class_map`` that there is not.
        WeightsError: the weights cannot be read, or do not fit.
    """
    model, names, ids = config.model, list(class_names), list(category_ids)
    initial = find_detector(config)
    if not isinstance(initial, InitialDetector):
        _check_no_classes(config)
        said = [f"{initial.path} is a backbone{initial.told}: all other layers are new"] if initial else []
        return Initialised(build_model(model, config.roi, len(names) + 1), names, ids, None, said)
    rows = class_rows(config, initial, names)
    for position in rows.kept:
        category = initial.category_ids[position]
        ids.append(category if category not in ids else max(*ids, *initial.category_ids) + 1)
    built = build_model(replace(model, weights="none"), config.roi, len(rows.new) + 1)
    transfer(built, initial, rows, config)
    said = [
        f"{initial.said}; background, objectness and box regression come along, and of the classes:",
        *rows.table().splitlines(),
    ]
    if not any(initial.class_names):
        said.append(
            f"note: the file does not name its classes. They are called 1 to {len(initial.class_names)} in "
            "'model.class_map={1: NAME, 2: NAME}', which carries them over"
        )
    said += [f"note: {sentence}" for sentence in changes(initial, config, built)]
    if _without_eps(config, initial):
        said.append(
            "note: torchvision's published weights of this network were trained without an epsilon in the norms. If "
            f"{initial.source} is such a file, or was trained from one, give model.norm_eps=0"
        )
    return Initialised(built, rows.new, ids, rows, said)


def class_rows(config: Config, initial: InitialDetector, class_names: Sequence[str]) -> ClassRows:
    """Where the rows of the classes come from when ``initial`` is trained on the classes ``class_names``.

    Raises:
        ConfigError: ``model.class_map`` or ``model.keep_classes`` asks for classes that there are not.
        WeightsError: names of classes are too much alike.
    """
    model, source = config.model, initial.source
    beginning = "the mean of all old rows" if model.new_classes == "mean" else "random rows"
    rows = replace(match_classes(initial.class_names, class_names, model.class_map or {}, source), beginning=beginning)
    if not model.keep_classes:
        return rows
    if not any(initial.class_names):
        raise ConfigError(f"model.keep_classes=true: {source} does not name its classes, so they cannot be kept")
    kept = [position for position in rows.dropped if position not in rows.unwanted]
    names = [initial.class_names[position] for position in kept]
    twice = sorted(set(names) & set(class_names))
    if twice:
        raise ConfigError(
            f"model.keep_classes=true: the data have {', '.join(twice)} too, which model.class_map fills with "
            "something else; leave it out there"
        )
    return replace(
        rows,
        new=[*class_names, *names],
        sources=[*rows.sources, *([position] for position in kept)],
        how=[*rows.how, *("kept: not in the data" for _ in kept)],
        kept=kept,
    )


def _without_eps(config: Config, initial: InitialDetector) -> bool:
    """Whether ``initial`` may have been trained without the epsilon that the norms of the model have."""
    model = config.model
    if initial.trained or model.norm == "group" or model.norm_eps == 0:
        return False
    if not is_file(model.weights):
        return without_eps(_published(config))
    return model.fpn_norm == "none" and _is_of(model, "FasterRCNN_ResNet50_FPN_Weights")


def _check_no_classes(config: Config) -> None:
    """Refuse keys that carry classes over where there are none."""
    model = config.model
    for key, given in (("class_map", model.class_map), ("keep_classes", model.keep_classes)):
        if given:
            raise ConfigError(
                f"model.{key} is given, but model.weights={model.weights} is no trained detector: there are no classes "
                "to carry over"
            )


def _published(config: Config) -> Any:
    """torchvision's weights of a detector that ``model.weights`` names, or None; those of another model are refused."""
    model = config.model
    entry = published_entry(model.weights, model.published)
    if entry is not None and _is_of(model, type(entry).__name__):
        return entry
    if entry is not None or any(model.weights in enum.__members__ for enum in enums().values()):
        raise WeightsError(
            f"model.weights={model.weights}: these are weights of a detector of torchvision's, and the model is "
            f"{f'{model.published} of torchvision' if model.published else 'none of them'}. Give the model that they "
            "are of: model=resnet50_fpn, resnet50_fpn_v2, mobilenet_v3_large_fpn or mobilenet_v3_large_320_fpn; or "
            "model.weights=imagenet for the backbone alone"
        )
    return None


def _is_of(model: ModelConfig, enum: str) -> bool:
    """Whether torchvision's weights of the name ``enum`` may fit, as far as names tell without building anything.

    What kind of R-CNN they are of and the size of its images do not matter: these layers are the same.
    """
    plain = lambda name: name.lower().partition("_")[2].replace("_320", "").removesuffix("_weights")
    if model.published:
        return plain(enum) == plain(model.published)
    # A model of one's own that has the network of theirs may have all of its layers.
    own = "" if is_target(model.backbone) else full_name(model.backbone)
    return model.name == "fpn" and own.startswith("torchvision/") and plain(enum).startswith(own.partition("/")[2])

"""What a detector has forgotten of the classes that it knew before: their AP before and after the training.

Both are measured with the thresholds and limits of the detector from before, so that what differs is what was learned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text
from torchvision.models.detection import FasterRCNN

from detector.config.results_folder import run_folder
from detector.config.schema import Config, DataConfig, ModelConfig, to_dict
from detector.config.targets import trust_in
from detector.data.loader import DetectionLoader
from detector.data.splits import Split
from detector.evaluation.detect import run_detector
from detector.evaluation.ground_truth import GroundTruth
from detector.evaluation.result_tables import new_table, number
from detector.evaluation.scoring import evaluate
from detector.exceptions import ConfigError
from detector.files import read_json_or_empty, write_json
from detector.models.checkpoint import Checkpoint, TrainedModel, load_trained_model
from detector.models.device import choose_device
from detector.models.initial.build import find_detector
from detector.models.initial.class_rows import ClassRows, match_classes
from detector.models.initial.kinds import InitialDetector
from detector.models.initial.transfer import transfer
from detector.models.seeding import seeded

FORGETTING = "forgetting.json"
LIMITS = {  # keys of the groups of model that say which regions and detections are left of all
    "head": ("score_thresh", "nms_thresh", "detections_per_image"),
    "rpn": ("score_thresh", "nms_thresh", "pre_nms_top_n_test", "post_nms_top_n_test"),
}
SIZE = ("min_size", "max_size")


@dataclass(frozen=True)
class OldClass:
    """A class that the detector knew before; numbers are None where there is no ground truth.

    Attributes:
        name: in the old validation data.
        boxes: ground-truth boxes there.
        before: its AP.
        after: that of the classes that it has become; None before the end of the run, or if there is no such number:
            it was dropped, or has become one class with others.
        became: their names.
    """

    name: str
    boxes: int
    before: float | None
    after: float | None
    became: list[str]


@dataclass(frozen=True)
class Known:
    """What the detector that a run starts from knows.

    Attributes:
        classes: those that the old validation data have; none without these data.
        limits: values of :data:`LIMITS` that it was measured with, by group and key.
        size: its ``min_size`` and ``max_size``, by key.
    """

    classes: list[OldClass] = field(default_factory=list)
    limits: dict[str, dict[str, Any]] = field(default_factory=dict)
    size: dict[str, Any] = field(default_factory=dict)


def old_split(data: DataConfig) -> Split:
    """The validation data of the old classes."""
    root = Path(data.root).expanduser()
    return Split(
        "val",
        root / data.old_val_annotations,
        root / data.old_val_images,
        data.on_invalid,
        white=data.white,
        on_invalid_key="data.on_invalid",
        keys="data.root, data.old_val_annotations and data.old_val_images",
    )


def known_before(config: Config, rows: ClassRows | None, checkpoint: Path | None) -> Known:
    """The AP of the old classes before the training, for a run with old validation data.

    Args:
        config: of the run.
        rows: what becomes of the old classes, in a new run; None if it does not start from a trained detector.
        checkpoint: that the run goes on from, with the numbers in the folder of its run; None: it is a new one.

    Raises:
        DetectorError: as :func:`measure_before`.
    """
    if checkpoint is None:
        return measure_before(config, rows)
    content = read_json_or_empty(run_folder(checkpoint) / FORGETTING)
    classes = [replace(OldClass(**old), after=None) for old in content.get("classes", [])]
    return Known(classes, content.get("limits", {}), content.get("size", {}))


def before_in_words(config: Config, known: Known) -> list[str]:
    """The AP of the old classes as a line for the start of a run, and what else differs after it; none without old
    validation data."""
    if known.classes:
        listed = ", ".join(f"{old.name} {number(old.before)}" for old in known.classes)
        return [f"AP on data.old_val_annotations before: {listed}", *sizes_in_words(config.model, known)]
    if not config.data.old_val_annotations:
        return []
    return [
        f"data.old_val_annotations: the run that goes on has no {FORGETTING} with the AP before, so that its end "
        "cannot say what was forgotten"
    ]


def sizes_in_words(model: ModelConfig, known: Known) -> list[str]:
    """A line if images do not get the same size before and after the training."""
    differ = {key: value for key, value in known.size.items() if value != getattr(model, key)}
    listed = "; ".join(f"model.{key} {value} before, {getattr(model, key)} after" for key, value in differ.items())
    return [f"the images have other sizes before and after, which changes the AP too: {listed}"] if differ else []


def measure_before(config: Config, rows: ClassRows | None) -> Known:
    """Run the detector that a training starts from on the old validation data; its file may be gone afterwards.

    PyTorch's random numbers go on where they were.

    Args:
        config: of the run; ``model.weights`` and ``data.old_val_annotations`` are read.
        rows: what becomes of the old classes; None if the run does not start from a trained detector.

    Returns:
        The classes without their AP after it, and the settings of the detector.

    Raises:
        ConfigError: the run does not start from a detector that names its classes, or the data have none of these.
        DataError: the data cannot be used.
        WeightsError: names of their classes are too much alike.
    """
    initial = find_detector(config) if rows is not None and any(rows.old) else None
    if rows is None or not isinstance(initial, InitialDetector):
        what = "names no classes" if rows else "is no trained detector"
        raise ConfigError(
            f"data.old_val_annotations: model.weights={config.model.weights} {what}, so nothing is forgotten"
        )
    split = old_split(config.data)
    split.dataset()
    truth = GroundTruth.of(split)
    remedy = f"Rename or remove them in {split.annotations}, which data.old_val_annotations names"
    known = match_classes(rows.old, truth.class_names, {}, initial.source, remedy)
    positions = {sources[0]: label for label, sources in enumerate(known.sources) if sources}
    if not positions:
        raise ConfigError(
            f"data.old_val_annotations: {split.annotations} has none of the classes of "
            f"model.weights={config.model.weights}: {', '.join(filter(None, rows.old))}"
        )
    with seeded(config.seed):
        module = detector_before(config, initial).to(choose_device(config.trainer.accelerator)).eval()
        before = scores(module, {old: truth.category_ids[label] for old, label in positions.items()}, config, split)
    found = []
    for old, label in positions.items():
        boxes = int(((truth.label == label) & ~truth.iscrowd).sum())
        became = [rows.new[target] for target in rows.targets(old)]
        found.append(OldClass(truth.class_names[label], boxes, before[truth.category_ids[label]], None, became))
    groups = {group: getattr(module.config.model, group) for group in LIMITS}
    limits = {group: {key: getattr(groups[group], key) for key in keys} for group, keys in LIMITS.items()}
    return Known(found, limits, {key: getattr(module.config.model, key) for key in SIZE})


def measure_after(config: Config, known: Known, best: Path) -> Known:
    """Run the detector that came out of the training on the old validation data, with the limits of the one before.

    Args:
        config: of the run.
        known: of :func:`measure_before`.
        best: its best checkpoint.

    Raises:
        DetectorError: the checkpoint or the data cannot be read.
    """
    split = old_split(config.data)
    truth = GroundTruth.of(split)
    category_of = dict(zip(truth.class_names, truth.category_ids, strict=True))
    module = load_trained_model(best, choose_device(config.trainer.accelerator), trust_in(config))
    if known.limits:
        set_limits(module.model, **known.limits)
    found = known.classes
    together = Counter(name for old in found for name in old.became)
    alone = [old.name for old in found if old.became and all(together[name] == 1 for name in old.became)]
    became = {
        module.class_names.index(name): category_of[old.name]
        for old in found
        if old.name in alone
        for name in old.became
    }
    after = scores(module, became, config, split)
    numbers = {name: after[category_of[name]] for name in alone}
    return replace(known, classes=[replace(old, after=numbers.get(old.name)) for old in found])


def set_limits(model: FasterRCNN, head: dict[str, Any], rpn: dict[str, Any]) -> None:
    """Give ``model`` the values of :data:`LIMITS`."""
    heads = model.roi_heads
    heads.score_thresh, heads.nms_thresh = head["score_thresh"], head["nms_thresh"]
    heads.detections_per_img = head["detections_per_image"]
    model.rpn.score_thresh, model.rpn.nms_thresh = rpn["score_thresh"], rpn["nms_thresh"]
    model.rpn._pre_nms_top_n["testing"] = rpn["pre_nms_top_n_test"]
    model.rpn._post_nms_top_n["testing"] = rpn["post_nms_top_n_test"]


def detector_before(config: Config, initial: InitialDetector) -> TrainedModel:
    """The detector as it was, with all of its own classes."""
    names, ids = initial.class_names, initial.category_ids
    facts = {"config": initial.trained or to_dict(config), "class_names": names, "category_ids": ids}
    module = TrainedModel(Checkpoint(Path(initial.source), {"hyper_parameters": facts}), trust_in(config))
    itself = ClassRows(names, names, [[position] for position in range(len(names))], [""] * len(names))
    transfer(module.model, initial, itself, module.config)
    return module


def scores(module: TrainedModel, category_of: dict[int, int], config: Config, split: Split) -> dict[int, float | None]:
    """AP of each category; ``category_of`` has that of each class of the detector, by position; others do not count."""
    dataset = split.dataset()
    if config.data.exif != "auto":
        dataset.exif = config.data.exif
    loader = DetectionLoader(dataset, batch_size=config.data.eval_batch_size, num_workers=config.data.workers)
    truth = GroundTruth.of(split)
    nothing = max(truth.category_ids) + 1
    ids = [category_of.get(position, nothing) for position in range(len(module.class_names))]
    detections = run_detector(module, loader, ids).detections.without([nothing])
    return {found.category_id: found.AP for found in evaluate(truth, detections, dataset.image_ids).per_class}


def forgetting_table(found: Sequence[OldClass]) -> Table:
    """The AP of each old class before and after, and their mean."""
    table = new_table("AP of the classes it knew before", "class", "boxes", "before", "after", "change")
    for old in found:
        became = ", ".join(old.became) or "dropped"
        name = old.name if old.became == [old.name] else f"{old.name} ({became})"
        table.add_row(
            Text(name), f"{old.boxes:,}", number(old.before), number(old.after), change(old.before, old.after)
        )
    both = [(old.before, old.after) for old in found if old.before is not None and old.after is not None]
    if len(both) > 1:
        before, after = (sum(values) / len(both) for values in zip(*both, strict=True))
        table.add_row("mean", "", number(before), number(after), change(before, after), style="bold")
    return table


def change(before: float | None, after: float | None) -> str:
    """The difference with its sign."""
    return "n/a" if before is None or after is None else f"{after - before:+.3f}"


def write_forgetting(known: Known, folder: Path) -> None:
    """Write the numbers of the table, and what they were measured with, to the folder of a run, if there are any."""
    if known.classes:
        write_json(folder / FORGETTING, asdict(known))

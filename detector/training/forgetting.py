"""What a detector has forgotten of the classes that it knew before: their AP before and after the training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from detector.config.schema import Config, DataConfig, to_dict
from detector.config.targets import trust_in
from detector.data.loader import DetectionLoader
from detector.data.splits import Split
from detector.evaluation.detect import run_detector
from detector.evaluation.ground_truth import GroundTruth
from detector.evaluation.result_tables import new_table, number
from detector.evaluation.scoring import evaluate
from detector.exceptions import ConfigError
from detector.files import write_json
from detector.models.checkpoint import Checkpoint, TrainedModel, load_trained_model
from detector.models.device import choose_device
from detector.models.initial.build import class_rows, find_detector
from detector.models.initial.class_rows import ClassRows, match_classes
from detector.models.initial.kinds import InitialDetector
from detector.models.initial.transfer import transfer

FORGETTING = "forgetting.json"


@dataclass(frozen=True)
class OldClass:
    """A class that the detector knew before; numbers are None where there is no ground truth.

    Attributes:
        name: in the old validation data.
        boxes: ground-truth boxes there.
        before: its AP.
        after: that of the classes that it has become; None if it was dropped.
        became: their names.
    """

    name: str
    boxes: int
    before: float | None
    after: float | None
    became: list[str]


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


def check_old_data(config: Config, rows: ClassRows | None) -> None:
    """Read the old validation data, if there are any: better to refuse them now than after the training.

    Args:
        config: of the run.
        rows: what became of the old classes; None if the run does not start from a trained detector.

    Raises:
        ConfigError: the run does not start from a detector that names its classes, or the data have none of these.
        DataError: the data cannot be used.
    """
    if not config.data.old_val_annotations:
        return
    if rows is None or not any(rows.old):
        what = "names no classes" if rows else "is no trained detector"
        raise ConfigError(
            f"data.old_val_annotations: model.weights={config.model.weights} {what}, so nothing is forgotten"
        )
    split = old_split(config.data)
    split.dataset()
    known = match_classes(rows.old, GroundTruth.of(split).class_names, {}, config.model.weights)
    if not any(known.sources):
        raise ConfigError(
            f"data.old_val_annotations: {split.annotations} has none of the classes of "
            f"model.weights={config.model.weights}: {', '.join(filter(None, rows.old))}"
        )


def measure_forgetting(config: Config, best: Path, class_names: Sequence[str]) -> list[OldClass]:
    """Run the detector that a training started from, and the one that came out, on the old validation data.

    Args:
        config: of the run; ``model.weights`` and ``data.old_val_annotations`` are read.
        best: its best checkpoint.
        class_names: of its own data.

    Raises:
        DetectorError: the initial weights or the data cannot be read any more.
    """
    initial = find_detector(config)
    if not isinstance(initial, InitialDetector):
        raise ConfigError(f"model.weights={config.model.weights} is no trained detector any more")
    rows = class_rows(config, initial, class_names)
    split = old_split(config.data)
    truth = GroundTruth.of(split)
    known = match_classes(initial.class_names, truth.class_names, {}, initial.source)
    category_of = {
        sources[0]: category for sources, category in zip(known.sources, truth.category_ids, strict=True) if sources
    }
    device = choose_device(config.trainer.accelerator)
    before = scores(detector_before(config, initial).to(device).eval(), category_of, config, split)
    became = {target: category for old, category in category_of.items() for target in rows.targets(old)}
    after = scores(load_trained_model(best, device, trust_in(config)), became, config, split)
    found = []
    for old, category in category_of.items():
        label, targets = truth.category_ids.index(category), rows.targets(old)
        boxes = int(((truth.label == label) & ~truth.iscrowd).sum())
        found.append(
            OldClass(
                truth.class_names[label],
                boxes,
                before[category],
                after[category] if targets else None,
                [rows.new[target] for target in targets],
            )
        )
    return found


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


def write_forgetting(found: Sequence[OldClass], path: Path) -> None:
    """Write the numbers of the table."""
    content: dict[str, Any] = {"classes": [asdict(old) for old in found]}
    write_json(path, content)

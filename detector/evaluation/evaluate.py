"""What ``scripts/evaluate.py`` does: score a results file, or run a checkpoint and score what it finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detector.config.results_folder import check_overwrite, checkpoint_file, discard, now, results_folder
from detector.config.schema import DataConfig, EvaluateConfig
from detector.config.targets import check_trust, targets_of
from detector.data.coco import DetectionDataset
from detector.data.images import SHOWN, Reading
from detector.data.left_out import check_dropped
from detector.data.loader import DetectionLoader
from detector.data.orientation import first_told
from detector.data.problems import InvalidData
from detector.data.splits import Split, validation_split
from detector.evaluation.detect import match_categories, run_detector
from detector.evaluation.detections import Detections
from detector.evaluation.diagnosis import diagnose
from detector.evaluation.evaluation import SHEET, Evaluation
from detector.evaluation.gallery import make_gallery
from detector.evaluation.ground_truth import GroundTruth, reading_of
from detector.evaluation.html_report import write_report
from detector.evaluation.intervals import resample
from detector.evaluation.matches import match
from detector.evaluation.metrics import COCO_LIMIT
from detector.evaluation.plot_evaluation import PICTURES, plot_diagnosis
from detector.evaluation.prediction_sheet import draw_prediction_sheet
from detector.evaluation.result_tables import write_csv
from detector.evaluation.scoring import summarize
from detector.evaluation.stored_detections import (
    ANNOTATIONS,
    ELSEWHERE,
    METRICS_FILE,
    PREDICTIONS,
    find_one,
    image_note,
)
from detector.exceptions import CheckpointError, ConfigError, DataError
from detector.models.checkpoint import load_trained_model
from detector.models.device import choose_device
from detector.terminal import slow_progress

REPORT = "report.html"
CLASSES, IMAGES, PLOTS = "classes.csv", "images.csv", "plots"
RESULTS = (METRICS_FILE, PREDICTIONS, SHEET, REPORT, CLASSES, IMAGES, PLOTS)
OF_REPORT = (REPORT, CLASSES, IMAGES, *(f"{PLOTS}/{name}.png" for name in PICTURES))


@dataclass(frozen=True)
class ScoringInputs:
    """What :func:`write_results` is to score.

    Attributes:
        truth: the annotations.
        detections: what was found.
        limit: detections counted for each image and class.
        image_ids: images to be scored; None: all.
        images: folder of the images, for the report; None if unknown.
        reading: how they are read.
        facts: what else ``meta`` in ``metrics.json`` says.
        notes: sentences for the reader of the numbers.
    """

    truth: GroundTruth
    detections: Detections
    limit: int
    image_ids: list[int] | None = None
    images: Path | None = None
    reading: Reading = SHOWN
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


def evaluate_from_config(config: EvaluateConfig) -> Evaluation:
    """Do what ``config`` asks for.

    Raises:
        ConfigError: neither a checkpoint nor annotations and predictions are given, or a mixture of both.
        DetectorError: a file is missing or cannot be used.
    """
    check_inputs(config)
    folder = output_folder(config)
    check_overwrite(folder, inputs_of(config), config.overwrite, METRICS_FILE, RESULTS)
    return evaluate_checkpoint(config) if config.checkpoint else evaluate_files(config)


def evaluate_files(config: EvaluateConfig) -> Evaluation:
    """Score a COCO results file against an annotation file and write what :func:`write_results` says.

    Raises:
        DataError: a file is missing or cannot be used; lists the entries that are wrong.
    """
    annotations, dropped = Path(config.annotations).expanduser(), config.drop_categories
    truth = GroundTruth(annotations, config.on_invalid == "drop", drop_categories=dropped)
    check_dropped(dropped, [truth], "drop_categories")
    detections = truth.read_detections(Path(config.predictions).expanduser())
    limit = config.max_detections or COCO_LIMIT
    folder, stored = image_folder(config.images), find_one(config.predictions)
    reading = reading_of(truth, folder, stored.trained.data if stored.trained else None) if folder else SHOWN
    notes = [note] if (note := image_note(stored, config.predictions, truth)) else []
    outcome = write_results(
        config, ScoringInputs(truth, detections, limit, images=folder, reading=reading, notes=notes)
    )
    if resolved(outcome.folder / PREDICTIONS) != resolved(config.predictions):
        discard(outcome.folder, [PREDICTIONS, SHEET])  # of a checkpoint that was evaluated here before
    return outcome


def evaluate_checkpoint(config: EvaluateConfig) -> Evaluation:
    """Run the detector of a checkpoint and score what it finds.

    It runs over ``config.annotations`` and ``config.images``, or else over the whole validation set that the checkpoint
    was trained with. Writes ``predictions.json``, ``predictions.png`` and what :func:`write_results` writes into
    :func:`output_folder`.

    Raises:
        DetectorError: the checkpoint or the data set is missing or damaged, or their classes differ.
    """
    folder = output_folder(config)
    device = choose_device(config.accelerator)
    module = load_trained_model(config.checkpoint, device, config.trust)
    heads = module.model.roi_heads
    if config.score_thresh >= 0:
        heads.score_thresh = config.score_thresh
    dataset, truth = data_of(config, module.config.data, module.class_names)
    # A class that the detector has and that is not scored is detected, and then left out.
    unscored = {i: n for i, n in zip(truth.dropped_ids, truth.dropped, strict=True) if n in module.class_names}
    scored = {*dataset.class_names, *unscored.values()}
    if module.config.model.keep_classes and scored < set(module.class_names):
        # Of the data sets that it was trained on one after the other, each has some of its classes.
        taken = [*truth.category_ids, *truth.dropped_ids]
        unknown = [(i, n) for i, n in zip(module.category_ids, module.class_names, strict=True) if n not in scored]
        free = max([*taken, *module.category_ids]) + 1
        unscored |= {free + k if i in taken else i: name for k, (i, name) in enumerate(unknown)}
        names = ", ".join(name for _, name in unknown)
        truth.notes.append(f"Not scored, because the annotations do not have them: {names}.")
    category_ids, renumbered = match_categories(
        module.class_names,
        module.category_ids,
        [*dataset.class_names, *unscored.values()],
        [*dataset.category_ids, *unscored],
        config.checkpoint,
        str(truth.path),
    )

    # Spread over the data set: neighbours in a file are often alike.
    count = min(config.sheet_images, len(dataset))
    chosen = {int(i) for i in np.linspace(0, len(dataset) - 1, count)} if count else set()
    loader = DetectionLoader(
        dataset, batch_size=config.batch_size, num_workers=config.workers, pin_memory=device.type == "cuda"
    )
    found = run_detector(module, loader, category_ids, chosen, config.progress_bar)
    detections = found.detections.without(list(unscored))
    detections.to_json(folder / PREDICTIONS)
    if found.samples:
        left_out = torch.tensor([k for k, i in enumerate(category_ids, start=1) if i in unscored])
        for _, _, output in found.samples:
            kept = ~torch.isin(output["labels"], left_out)
            output.update({key: value[kept] for key, value in output.items()})
        draw_prediction_sheet(found.samples, module.class_names, folder / SHEET)
    else:
        discard(folder, [SHEET])
    limit = config.max_detections or max(COCO_LIMIT, heads.detections_per_img)
    facts = {
        "data": {"annotations": resolved(truth.path), "images": dataset.images and resolved(dataset.images)},
        "score_thresh": heads.score_thresh,
        "batch_size": config.batch_size,
        "device": str(device),
        "images_per_second": round(found.images_per_second, 2),
    }
    return write_results(
        config,
        ScoringInputs(
            truth,
            detections,
            limit,
            dataset.image_ids,
            dataset.images,
            dataset.reading,
            facts,
            [renumbered] if renumbered else [],
        ),
    )


def data_of(
    config: EvaluateConfig, trained: DataConfig, class_names: Sequence[str]
) -> tuple[DetectionDataset, GroundTruth]:
    """The images to run on, and the annotations to score against.

    Args:
        config: its ``annotations`` and ``images``, or none for the validation set of the training.
        trained: of the detector's training.
        class_names: of the detector. What it has kept from an earlier training is scored in ``config.annotations``,
            although its own training data were without.

    Raises:
        CheckpointError: the data set is made by a class that ``trust`` does not allow.
        ConfigError: ``drop_categories`` names a class that there is not.
        DataError: a file is missing or cannot be used; lists the entries that are wrong.
    """
    if config.annotations:
        annotations, images = Path(config.annotations).expanduser(), Path(config.images).expanduser()
        dropped = tuple(name for name in trained.drop_categories if name not in class_names)
        split = Split("val", annotations, images, trained.on_invalid, drop_categories=dropped, white=trained.white)
    else:
        try:
            check_trust(targets_of(trained.name, "data.name"), config.trust)
        except CheckpointError as error:
            raise CheckpointError(
                f"{config.checkpoint}: {error}. Or evaluate on files: annotations=FILE.json images=FOLDER. What the "
                f"run has found is scored by predictions=RUN/{PREDICTIONS} annotations=RUN/{ANNOTATIONS}"
            ) from error.__cause__
        split = validation_split(trained, config.checkpoint, ELSEWHERE)
    split = replace(split, drop_categories=(*split.drop_categories, *config.drop_categories))
    drop = split.drops_invalid if config.on_invalid == "as_trained" else config.on_invalid == "drop"
    # Boxes are scored as the file has them, those that leave their image too; the data set's own are only drawn.
    dataset = replace(split, on_invalid="clip").dataset()
    lost = [problem for problem in dataset.problems if problem.remedy == "image"]
    if lost and not drop:
        raise InvalidData(split.annotations, lost)
    if dataset.exif == "auto":
        dataset.exif = first_told(dataset.evidence.exif, trained.exif)
    check_dropped(config.drop_categories, [dataset.table], "drop_categories")
    return dataset, GroundTruth.of(replace(split, on_invalid="drop" if drop else "error"))


def write_results(config: EvaluateConfig, inputs: ScoringInputs) -> Evaluation:
    """Score, write ``metrics.json`` and, for a report, ``report.html``, ``plots/``, ``classes.csv`` and ``images.csv``.
    Without a report, the files of an older report are removed.
    """
    folder, truth = output_folder(config), inputs.truth
    matches = match(truth, inputs.detections, inputs.image_ids, inputs.limit)
    result = summarize(matches, truth, inputs.detections, config.evaluator)
    result.notes.extend(inputs.notes)
    meta = {
        "inputs": inputs_of(config),
        "date": now(),
        "evaluator": config.evaluator,
        "max_detections": inputs.limit,
        "drop_categories": list(truth.dropped),
        **inputs.facts,
    }
    if not config.report:
        result.save(folder / METRICS_FILE, meta)
        discard(folder, OF_REPORT)
        return Evaluation(result, None, folder)
    with slow_progress("resampling the images", config.progress_bar) as tell:
        diagnosis = diagnose(matches, resample(len(matches.image_ids), config.resamples), tell)
    result.intervals.update({name: value[1:] for name, value in diagnosis.metrics.items() if value.low == value.low})
    result.save(folder / METRICS_FILE, meta, {"analysis": diagnosis.to_dict()})
    write_csv(folder / CLASSES, diagnosis.class_rows())
    write_csv(folder / IMAGES, diagnosis.image_rows(truth.names_of(matches.image_ids.tolist())))
    plots = plot_diagnosis(diagnosis, folder / PLOTS)
    gallery = make_gallery(diagnosis, truth, inputs.images, inputs.reading, config.gallery_images)
    write_report(folder / REPORT, result, diagnosis, plots, gallery, meta)
    return Evaluation(result, diagnosis, folder)


# --------------------------------------------------------------------------------- inputs and outputs
def check_inputs(config: EvaluateConfig) -> None:
    """Raise :class:`ConfigError` unless ``config`` names one of the two things that can be evaluated."""
    usage = (
        "give checkpoint=RUN/checkpoints/best.ckpt (and annotations=GT.json images=FOLDER for another data set "
        "than its own), or annotations=GT.json predictions=DETECTIONS.json (and images=FOLDER for pictures)"
    )
    given = [key for key in ("checkpoint", "annotations", "predictions", "images") if getattr(config, key)]
    if not given:
        raise ConfigError(f"there is nothing to evaluate: {usage}")
    usages = (
        {"checkpoint"},
        {"checkpoint", "annotations", "images"},
        {"annotations", "predictions"},
        {"annotations", "predictions", "images"},
    )
    if set(given) not in usages:
        lacking = sorted(f"{key}=" for keys in usages for key in keys - set(given) if keys - {key} == set(given))
        missing = f"{' or '.join(lacking)} is missing; " if lacking else ""
        raise ConfigError(f"cannot tell what to evaluate from the keys {', '.join(given)}: {missing}{usage}")


def image_folder(images: str) -> Path | None:
    """The folder that the key ``images`` names; None for "".

    Raises:
        DataError: there is no such folder.
    """
    if not images:
        return None
    folder = Path(images).expanduser()
    if not folder.is_dir():
        raise DataError(f"images={images}: there is no such folder; leave the key out for boxes without pictures")
    return folder


def output_folder(config: EvaluateConfig) -> Path:
    """``config.output_dir``, or else a folder called after what is scored, and after the data if they were given."""
    if config.checkpoint:
        name = checkpoint_file(config.checkpoint).stem
        name += f"-{Path(config.annotations).stem}" if config.annotations else ""
    else:
        path = Path(config.predictions).expanduser()
        name = path.resolve().parent.name if path.name == PREDICTIONS else path.stem
    return results_folder(config.output_dir, "evaluate", name, config.checkpoint)


def inputs_of(config: EvaluateConfig) -> dict[str, str]:
    """The files that ``config`` names, as absolute paths."""
    given = {key: getattr(config, key) for key in ("checkpoint", "annotations", "predictions", "images")}
    if config.checkpoint:
        given["checkpoint"] = str(checkpoint_file(config.checkpoint))
    return {key: resolved(value) for key, value in given.items() if value}


def resolved(path: str | Path) -> str:
    """``path`` as an absolute path."""
    return str(Path(path).expanduser().resolve())

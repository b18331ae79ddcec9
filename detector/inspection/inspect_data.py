"""What ``scripts/inspect_data.py`` does: examine a data set, print tables, write pictures and cleaned copies."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from detector.config.results_folder import check_overwrite, discard, now
from detector.config.schema import InspectConfig
from detector.data.splits import is_builtin
from detector.data.transforms import Augment, AugmentedDataset
from detector.exceptions import ConfigError, DataError, WeightsError
from detector.files import LISTED_PROBLEMS, write_json
from detector.inspection.advice import advice
from detector.inspection.cleaned_copy import CleanedCopy, clean
from detector.inspection.doctor import QUANTILES, Examination, examine, splits_of
from detector.inspection.plot_data import draw_augmentation, plot_data
from detector.inspection.recipe import Recipe, derive
from detector.inspection.repair import write_copy
from detector.models.faster_rcnn import check_model
from detector.outcome import Outcome
from detector.terminal import slow_progress, titled
from detector.words import counted

RECORD, PLOT, SHEET = "data.json", "data.png", "augmentation.png"
COPIES = ("fix", "fix_val")  # keys that name the cleaned copies of train and val
DRAWS = 3  # augmented versions of each image on the sheet


@dataclass(frozen=True, repr=False)
class Inspection(Outcome):
    """What came out, and where it is.

    Attributes:
        examination: what was found.
        folder: with ``data.json`` and the pictures.
        advice: sentences on what to do.
        copies: a sentence for each cleaned copy.
        refused: a sentence for each cleaned copy that was not written.
        recipe: a training that suits the data; None for the built-in ones, without a training box, and for
            weights of a detector that do not fit.
    """

    examination: Examination
    folder: Path
    advice: list[str]
    copies: list[str]
    refused: list[str]
    recipe: Recipe | None

    pictures: ClassVar[tuple[str, ...]] = (PLOT, SHEET)

    def __rich__(self) -> Group:
        found = self.examination
        parts: list[Any] = [split_table(found), class_table(found)]
        if found.anchors is not None:
            parts += [size_table(found), anchor_table(found)]
        if any(s.problems for s in found.splits):
            parts.append(problem_text(found))
        parts.append(Text("\n".join(f"- {s}" for s in (*self.advice, *self.copies))))
        if self.recipe is not None:
            why = "\n".join(f"- {s}" for s in self.recipe.reasons)
            parts += [Text(f"\nA training of minutes on two CPU cores that suits these data:\n{why}\n")]
            parts += [Text(self.recipe.command, no_wrap=True, overflow="ignore")]
        return Group(*parts)


def inspect_from_config(config: InspectConfig, given: Collection[str] = ()) -> Inspection:
    """Do what ``config`` asks for.

    Args:
        config: of the inspection.
        given: keys of it that the user set; the training that is derived keeps them.

    Raises:
        DataError: a file or folder of the data is missing, or is no annotation file at all.
        ConfigError: keys of the model do not go together, or results cannot be written.
    """
    check_model(config.model)
    splits = splits_of(config.data)
    folder = Path(config.output_dir).expanduser()
    inputs = [str(path.resolve()) for split in splits for path in (split.annotations, split.images)]
    check_outputs(config, folder, inputs, [split.annotations for split in splits])
    with slow_progress("looking into the images", config.progress_bar) as tell:
        found = examine(config, splits, tell)
        wanted = [number for number, key in enumerate(COPIES[: len(splits)]) if getattr(config, key)]
        copies = dict(zip(wanted, clean(found, wanted, config, tell), strict=True)) if wanted else {}
    written = {number: copy for number, copy in copies.items() if config.force or not copy.loses_much}
    told = [write(getattr(config, COPIES[number]), found.splits[number].name, copy) for number, copy in written.items()]
    told += [keep_exif(found, number) for number in written if keep_exif(found, number)]
    refused = [
        f"{COPIES[number]}={getattr(config, COPIES[number])} is not written: it would lack {copy.losses} of the "
        f"{found.splits[number].name} set, which is more than a tenth. force=true writes it."
        for number, copy in copies.items()
        if number not in written
    ]
    said = advice(found, [COPIES[number] for number in written])
    recipe = None
    if found.anchors is not None and not is_builtin(config.data):
        try:
            recipe = derive(config, found.anchors, found.splits[0].read.sizes, given)
        except WeightsError as error:
            said.append(f"No training is derived: {error}")
    content = {**found.to_dict(), "advice": [*said, *refused], "meta": {"inputs": inputs, "date": now()}}
    content["recipe"] = {"arguments": recipe.arguments, "reasons": recipe.reasons} if recipe else {}
    write_json(folder / RECORD, content)
    plot_data(found, folder / PLOT)
    if not draw_sheet(config, found, folder / SHEET):
        discard(folder, [SHEET])
    return Inspection(found, folder, said, told, refused, recipe)


def keep_exif(found: Examination, number: int) -> str:
    """A sentence if the entries of a split tell how its photographs are turned: its copy may lack those that do."""
    exif, turned = found.exif[number], len(found.splits[number].evidence.undecided)
    if exif == "auto" or not turned:
        return ""
    return (
        f"Use data.exif={exif} with the copy of the {found.splits[number].name} annotations: that is how its "
        f"{counted(turned, 'photograph')} that EXIF turns without a change of size were annotated, and the copy may "
        "lack the entries that tell."
    )


def write(out: str, split: str, copy: CleanedCopy) -> str:
    """Write a cleaned copy of the annotations of a split; returns a sentence about it."""
    log = write_copy(Path(out).expanduser(), copy.content, copy.changes)
    counts = Counter(change["what"] for change in copy.changes)
    listed = ", ".join(f"{n} x {what}" for what, n in counts.most_common()) or "nothing to change"
    lost = f", which lacks {copy.losses}" if copy.lost("image") or copy.lost("annotation") else ""
    return f"Cleaned copy of the {split} annotations: {out}{lost} ({listed}; each change is in {log.name})."


def check_outputs(config: InspectConfig, folder: Path, inputs: list[str], sources: list[Path]) -> None:
    """Raise :class:`ConfigError` if a result would replace something that is not ours to replace."""
    check_overwrite(folder, inputs, config.overwrite, RECORD, (RECORD, PLOT, SHEET))
    if config.fix_val and len(sources) < 2:
        raise ConfigError(f"fix_val={config.fix_val}: there are no validation annotations to clean")
    for key in COPIES:
        out = Path(getattr(config, key)).expanduser()
        if not getattr(config, key):
            continue
        if out.suffix != ".json":
            raise ConfigError(f"{key}={out}: name a .json file")
        if any(out.resolve() == source.resolve() for source in sources):
            raise ConfigError(f"{key}={out}: this is the file that is cleaned; write the copy to another one")
        if out.exists() and not config.overwrite:
            raise ConfigError(
                f"{key}={out}: there is such a file already; choose another name, or replace it with overwrite=true"
            )
    if config.fix and config.fix_val and Path(config.fix).resolve() == Path(config.fix_val).resolve():
        raise ConfigError("fix and fix_val name the same file")


def draw_sheet(config: InspectConfig, found: Examination, out: Path) -> bool:
    """Draw training images before and after augmentation; return whether there was one.

    Images that EXIF turns and whose boxes may be of either form, then others, spread over the split.
    """
    if not config.sheet_images:
        return False
    train = found.splits[0]
    try:  # what cannot be read or used is listed elsewhere
        dataset = replace(train.split, on_invalid="clip", keep_empty=True).dataset()
    except DataError:
        return False
    dataset.exif = found.exif[0]
    augmented = AugmentedDataset(dataset, Augment(config.augment), config.seed)
    rows, count = [], min(config.sheet_images, len(dataset))
    doubtful = np.flatnonzero(np.isin(dataset.image_ids, train.read.image_ids[train.evidence.undecided]))
    others = np.setdiff1d(np.linspace(0, len(dataset) - 1, count).round().astype(int), doubtful)
    for i in [*doubtful.tolist(), *others.tolist()][:count]:
        try:
            versions = [dataset[i], *(augmented[draw, i] for draw in range(DRAWS))]
            rows.append((str(dataset.table.file_names[i]), versions))
        except DataError:
            continue
    if rows:
        draw_augmentation(rows, dataset.class_names, out)
    return bool(rows)


# ------------------------------------------------------------------------------------------------ tables
def table_of(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table with the names of its rows in the first column; numbers are right-aligned."""
    table = titled(title)
    table.add_column(columns[0], overflow="fold")
    for column in columns[1:]:
        table.add_column(column, justify="right")
    for name, *cells in rows:
        table.add_row(Text(name), *cells)
    return table


def split_table(found: Examination) -> Table:
    """Images and boxes of each split."""
    rows = []
    for s in found.splits:
        counts = s.box_counts
        numbers = (len(counts), (counts == 0).sum(), (~s.crowd).sum(), (s.crowd & ~s.ignore).sum(), s.ignore.sum())
        mean = f"{counts.mean():.1f}" if len(counts) else ""
        rows.append((s.name, *(f"{n:,}" for n in numbers), mean, str(counts.max(initial=0)), f"{len(s.problems):,}"))
    columns = ("", "images", "without a box", "boxes", "crowds", "ignored", "boxes per image", "most", "problems")
    return table_of("Data", columns, rows)


def class_table(found: Examination) -> Table:
    """Boxes of each class."""
    counts = [s.class_counts(found.class_names) for s in found.splits]
    totals = [max(sum(of_split), 1) for of_split in counts]
    rows = []
    for k in sorted(range(len(found.class_names)), key=lambda k: -counts[0][k]):
        cells = [(f"{c[k]:,}", f"{c[k] / total:.1%}") for c, total in zip(counts, totals, strict=True)]
        rows.append((found.class_names[k], *itertools.chain(*cells)))
    columns = ("class", *itertools.chain(*((f"{s.name} boxes", "share") for s in found.splits)))
    return table_of("Classes", columns, rows)


def size_table(found: Examination) -> Table:
    """Quantiles of the sizes and shapes of the training boxes."""
    assert found.anchors is not None
    objects = found.anchors.objects
    measured = (
        ("side in the network's input, pixels", objects.side, 0),
        ("shorter side in the network's input, pixels", objects.narrow, 0),
        ("height / width", objects.ratio, 2),
    )
    rows = [(name, *(f"{v:.{digits}f}" for v in np.quantile(x, QUANTILES))) for name, x, digits in measured]
    return table_of("Training boxes, quantiles", ("", *(f"{q:.0%}" for q in QUANTILES)), rows)


def anchor_table(found: Examination) -> Table:
    """The share of training boxes that anchors reach."""
    assert found.anchors is not None
    rows = []
    for name, fit in found.anchors.fits.items():
        sizes = " ".join("[" + ", ".join(f"{s:g}" for s in sizes) + "]" for sizes in fit.sizes)
        ratios = ", ".join(f"{r:g}" for r in fit.aspect_ratios)
        recall = [f"{fit.recall(iou):.1%}" for iou in found.anchors.thresholds]
        rows.append((name, *recall, f"{fit.mean_iou:.3f}", f"{sizes} x [{ratios}]"))
    columns = ("", *(f"IoU {t:g}" for t in found.anchors.thresholds), "mean best IoU", "sizes and aspect ratios")
    return table_of("Anchors: share of the training boxes with an anchor of this IoU", columns, rows)


def problem_text(found: Examination) -> Text:
    """The problems of each split: how many of each kind, and the first of them."""
    lines = []
    for s in (s for s in found.splits if s.problems):
        kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(p.kind for p in s.problems).most_common())
        lines += [f"{s.read.file}: {kinds}", *(f"  {p}" for p in s.problems[:LISTED_PROBLEMS])]
        if len(s.problems) > LISTED_PROBLEMS:
            lines.append(f"  and {len(s.problems) - LISTED_PROBLEMS:,} more, all of them in {RECORD}")
    return Text("\n".join(lines) + "\n")

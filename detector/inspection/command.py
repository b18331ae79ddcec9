"""What ``scripts/inspect_data.py`` does: examine a data set, print tables, write pictures and cleaned copies."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from detector.config.results_folder import check_overwrite, discard, now
from detector.config.schema import InspectConfig
from detector.data.coco import CocoDataset
from detector.data.problems import LISTED
from detector.data.transforms import Augment, AugmentedDataset
from detector.exceptions import ConfigError, DataError
from detector.files import replacing
from detector.inspection.doctor import QUANTILES, Examination, cleaned, examine, files_of
from detector.inspection.findings import findings
from detector.inspection.plot_data import draw_augmentation, plot_data
from detector.inspection.repair import write_copy
from detector.models.faster_rcnn import check_model
from detector.terminal import slow_progress, titled

RECORD, PLOT, SHEET = "data.json", "data.png", "augmentation.png"
DRAWS = 3  # augmented versions of each image on the sheet


class Inspection(NamedTuple):
    """What came out, and where it is."""

    examination: Examination
    folder: Path
    findings: list[str]  # sentences on what to do
    copies: list[str]  # a sentence for each cleaned copy

    def __rich__(self) -> Group:
        found = self.examination
        parts: list[Any] = [split_table(found), class_table(found)]
        if found.anchors is not None:
            parts += [size_table(found), anchor_table(found)]
        if any(s.problems for s in found.splits):
            parts.append(problem_list(found))
        return Group(*parts, Text("\n".join(f"- {s}" for s in (*self.findings, *self.copies))))


def inspect_from_config(config: InspectConfig) -> Inspection:
    """Do what ``config`` asks for.

    Raises:
        DataError: a file or folder of the data is missing, or is no annotation file at all.
        ConfigError: keys of the model do not go together, or results cannot be written.
    """
    check_model(config.model)
    files = files_of(config.data)
    folder = Path(config.output_dir).expanduser()
    inputs = [str(path.resolve()) for _, *paths in files for path in paths]
    check_outputs(config, folder, inputs, [file for _, file, _ in files])
    with slow_progress("looking into the images", config.progress_bar) as tell:
        found = examine(config, tell)
    copies = []
    for number, out in enumerate((config.fix, config.fix_val)[: len(files)]):
        if out:
            content, changes = cleaned(found, number)
            log = write_copy(Path(out).expanduser(), content, changes)
            counts = Counter(change["what"] for change in changes)
            listed = ", ".join(f"{n} x {what}" for what, n in counts.most_common()) or "nothing to change"
            copies.append(
                f"Cleaned copy of the {found.splits[number].name} annotations: {out} ({listed}; each change "
                f"is in {log.name})."
            )
    said = findings(found, [key for key in ("fix", "fix_val") if getattr(config, key)])
    with replacing(folder / RECORD) as temporary:
        meta = {"inputs": inputs, "date": now()}
        temporary.write_text(
            json.dumps({**found.to_dict(), "findings": said, "meta": meta}, indent=2) + "\n",
            encoding="utf-8",
        )
    plot_data(found, folder / PLOT)
    if not draw_sheet(config, found, folder / SHEET):
        discard(folder, [SHEET])
    return Inspection(found, folder, said, copies)


def check_outputs(config: InspectConfig, folder: Path, inputs: list[str], sources: list[Path]) -> None:
    """Raise :class:`ConfigError` if a result would replace something that is not ours to replace."""
    check_overwrite(folder, inputs, config.overwrite, RECORD, (RECORD, PLOT, SHEET))
    if config.fix_val and len(sources) < 2:
        raise ConfigError(f"fix_val={config.fix_val}: there are no validation annotations to clean")
    for key in ("fix", "fix_val"):
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
    """Draw training images, spread over the set, before and after augmentation; return whether there was one."""
    split = found.splits[0]
    # What cannot be read or used is listed elsewhere.
    dataset = usable(split.read.file, split.folder) if config.sheet_images else None
    if dataset is None:
        return False
    augmented = AugmentedDataset(dataset, Augment(config.augment), config.seed)
    rows, chosen = [], np.linspace(0, len(dataset) - 1, min(config.sheet_images, len(dataset))).round().astype(int)
    for i in chosen.tolist():
        try:
            versions = [dataset[i], *(augmented[draw, i] for draw in range(DRAWS))]
            rows.append((str(dataset.table.file_names[i]), versions))
        except DataError:
            continue
    if rows:
        draw_augmentation(rows, dataset.class_names, out)
    return bool(rows)


def usable(file: Path, folder: Path) -> CocoDataset | None:
    """The images and boxes that training could use; None if there are none."""
    try:
        dataset = CocoDataset(file, folder, on_invalid="clip")
    except DataError:
        return None
    return dataset if len(dataset) else None


# ------------------------------------------------------------------------------------------------ tables
def split_table(found: Examination) -> Table:
    """Images and boxes of each split."""
    table = titled("Data")
    table.add_column("")
    for column in ("images", "without a box", "boxes", "crowds", "boxes an image", "most", "problems"):
        table.add_column(column, justify="right")
    for s in found.splits:
        counts = s.box_counts
        mean = f"{counts.mean():.1f}" if len(counts) else ""
        table.add_row(
            s.name,
            f"{len(counts):,}",
            f"{(counts == 0).sum():,}",
            f"{(~s.crowd).sum():,}",
            f"{s.crowd.sum():,}",
            mean,
            str(counts.max(initial=0)),
            f"{len(s.problems):,}",
        )
    return table


def class_table(found: Examination) -> Table:
    """Boxes of each class."""
    table = titled("Classes")
    table.add_column("class", overflow="fold")
    for s in found.splits:
        table.add_column(f"{s.name} boxes", justify="right")
        table.add_column("share", justify="right")
    counts = [s.class_counts(found.class_names) for s in found.splits]
    for k in sorted(range(len(found.class_names)), key=lambda k: -counts[0][k]):
        cells = []
        for of_split in counts:
            cells += [f"{of_split[k]:,}", f"{of_split[k] / max(sum(of_split), 1):.1%}"]
        table.add_row(Text(found.class_names[k]), *cells)
    return table


def size_table(found: Examination) -> Table:
    """Quantiles of the sizes and shapes of the training boxes."""
    table = titled("Training boxes, quantiles")
    table.add_column("")
    for q in QUANTILES:
        table.add_column(f"{q:.0%}", justify="right")
    for name, values, digits in (
        ("side in the network's input, pixels", found.sides, 0),
        ("shorter side in the network's input, pixels", found.narrow, 0),
        ("height / width", found.ratios, 2),
    ):
        table.add_row(name, *(f"{v:.{digits}f}" for v in np.quantile(values, QUANTILES)))
    return table


def anchor_table(found: Examination) -> Table:
    """The share of training boxes that anchors reach."""
    assert found.anchors is not None
    table = titled("Anchors: share of the training boxes with an anchor of this IoU")
    table.add_column("")
    for column in ("IoU 0.5", f"IoU {found.anchors.matched:g}", "mean best IoU"):
        table.add_column(column, justify="right")
    table.add_column("sizes and aspect ratios", overflow="fold")
    for name, fit in (("configured", found.anchors), ("k-means", found.proposed)):
        assert fit is not None
        words = " ".join("[" + ", ".join(f"{s:g}" for s in sizes) + "]" for sizes in fit.sizes)
        table.add_row(
            name,
            f"{fit.recall(0.5):.1%}",
            f"{fit.recall(fit.matched):.1%}",
            f"{fit.mean_iou:.3f}",
            f"{words} x [{', '.join(f'{r:g}' for r in fit.aspect_ratios)}]",
        )
    return table


def problem_list(found: Examination) -> Text:
    """The problems of each split: how many of each kind, and the first of them."""
    lines = []
    for s in found.splits:
        if not s.problems:
            continue
        kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(p.kind for p in s.problems).most_common())
        lines.append(f"{s.read.file}: {kinds}")
        lines += [f"  {p}" for p in s.problems[:LISTED]]
        if len(s.problems) > LISTED:
            lines.append(f"  and {len(s.problems) - LISTED:,} more, all of them in {RECORD}")
    return Text("\n".join(lines) + "\n")

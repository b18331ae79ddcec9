"""Cleaned copies of the annotation files that were examined, and what they would lose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from detector.config.schema import InspectConfig
from detector.data.annotations import parse_annotations
from detector.inspection.changes import Change
from detector.inspection.doctor import Examination
from detector.inspection.examined_split import ExaminedSplit, examine_splits
from detector.inspection.mend import mend
from detector.inspection.repair import repair
from detector.inspection.twins import Twins, shared

UNUSABLE = ("missing_file", "damaged_file", "wrong_size")  # kinds of problems whose image a cleaned copy leaves out
MUCH = 0.1  # share of the images, or of the boxes, from which on a loss needs the user's word


@dataclass(frozen=True)
class CleanedCopy:
    """The cleaned content of an annotation file.

    Attributes:
        content: of the copy.
        changes: what was changed.
    """

    content: dict[str, Any]
    changes: list[Change]

    def lost(self, one: str) -> Counter[str]:
        """How many entries are left out for each kind of problem; ``one`` is "image" or "annotation"."""
        return Counter(change["kind"] for change in self.changes if change["what"] == f"dropped {one}")

    @property
    def loses_much(self) -> bool:
        """Whether more than a tenth of the images or of the boxes is left out."""
        lost = {f"{one}s": self.lost(one).total() for one in ("image", "annotation")}
        return any(count > MUCH * (count + len(self.content[key])) for key, count in lost.items())

    @property
    def losses(self) -> str:
        """What is left out, and why: ``2 of 6 images (2 ambiguous_id) and 0 of 9 boxes``."""
        found = []
        for one, many in (("image", "images"), ("annotation", "boxes")):
            lost = self.lost(one)
            reasons = ", ".join(f"{count:,} {kind}" for kind, count in lost.most_common())
            total = lost.total() + len(self.content[f"{one}s"])
            found.append(f"{lost.total():,} of {total:,} {many}" + (f" ({reasons})" if lost else ""))
        return " and ".join(found)


def clean(
    found: Examination, numbers: Sequence[int], config: InspectConfig, progress: Callable[[float], object]
) -> list[CleanedCopy]:
    """Cleaned copies of the splits with these ``numbers``.

    Entries are mended first (:func:`mend`), then the images that can be read now are looked at, and what is wrong with
    them and their boxes is mended or left out (:func:`repair`). Images whose file is missing, damaged or of another
    size are left out, and images of the training set that the validation set has as well.

    Raises:
        DataError: an image folder is missing.
    """
    splits, twins = found.splits, found.twins
    # Which images of train are in val depends on both.
    needed = range(len(splits)) if 0 in numbers else numbers
    mended = {i: mend(splits[i].split.annotations, splits[i].split.images, config.open_images) for i in needed}
    if config.data.drop_categories or any(log.changes for _, log in mended.values()):  # there may be more to look at
        reads = [split.listed for split in splits]
        for i, (content, _) in mended.items():
            reads[i] = parse_annotations(splits[i].split.annotations, content, strict=False)
        splits, _, twins = examine_splits(config, [s.split for s in splits], reads, progress, splits)
    copies = []
    for number in numbers:
        content, log = mended[number]
        split = splits[number]
        wrong = (p for p in split.problems if p.kind in UNUSABLE)
        unusable = {p.image_id: (p.kind, p.what) for p in wrong if p.image_id is not None}
        unusable |= shared_images(splits, twins) if number == 0 else {}
        sizes = dict(zip(split.read.image_ids.tolist(), map(tuple, split.read.sizes.tolist()), strict=True))
        cleaned = repair(split.read.file, content, unusable, {i: sizes[i] for i in split.exchanged}, log)
        copies.append(CleanedCopy(cleaned, log.changes))
    return copies


def shared_images(splits: Sequence[ExaminedSplit], twins: Sequence[Twins]) -> dict[int, tuple[str, str]]:
    """Ids of the training images that are copies of validation images, with the kind of the problem and why."""
    ids, names = splits[0].read.image_ids.tolist(), [split.read.file_names.tolist() for split in splits]
    return {
        ids[twin.first[1]]: ("shared_image", f"the validation set has it too, as {names[1][twin.second[1]]}")
        for twin in shared(twins)
    }

"""What to do about what the data doctor has found, in sentences."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Sequence

import numpy as np

from detector.config.composition import in_quotes
from detector.data.left_out import dropped_classes
from detector.data.problems import CORRECT, SEEN_BY_INSPECTION
from detector.inspection.anchor_fit import resized_sizes
from detector.inspection.doctor import Examination, ExaminedSplit
from detector.inspection.twins import Twins, groups
from detector.words import counted

RARE = 20  # a class with fewer boxes in training is rare
NARROW = 8.0  # short side in pixels of the network's input below which an object is hard to find
WORDS = ("true", "false", "null", "inf", "nan")  # that are no texts in Hydra's grammar


def advice(found: Examination, written: Collection[str] = ()) -> list[str]:
    """Sentences on what to do about the data, the worst first.

    Args:
        found: by the doctor.
        written: those of ``fix`` and ``fix_val`` whose copies are written already.
    """
    said, train = [], found.splits[0]
    leaks = found.leaks
    if leaks:
        example = leaks[0]
        without = "" if "fix" in written else "; fix=OUT.json writes a training file without them"
        said.append(
            f"Training and validation share images: {counted(len(leaks), 'training image is', 'training images are')} "
            f"in validation too, such as {found.image_name(example.first)} as {found.image_name(example.second)}. "
            f"Scores on them are too good{without}."
        )
    for number, s in enumerate(found.splits):
        inside = count_inside([t for t in found.twins if t.copy], number)
        if inside:
            said.append(f"{inside:,} images show what another one of {s.name} shows (listed in data.json).")
        if s.ignore.any():
            said.append(
                f"Marked ignore in {s.name}: {counted(int(s.ignore.sum()), 'annotation')}. Training leaves that out as "
                "it does crowds; evaluation counts it as an object, as pycocotools does."
            )
        if s.problems:
            key = "fix" if s is train else "fix_val"
            remedies = [p.remedy for p in s.problems if p.remedy != SEEN_BY_INSPECTION]
            can_drop = remedies and CORRECT not in remedies
            drop = f" data.on_invalid=drop leaves {len(remedies)} of them out." if can_drop else ""
            copy = "" if key in written else f": {key}=OUT.json writes a cleaned copy"
            said.append(f"{counted(len(s.problems), 'problem')} in {s.read.file}{copy}.{drop}")
    said += picture_advice(found)
    if found.anchors is None:
        return [*said, "There is no box to train on."]
    said += class_advice(found)
    small = float((found.anchors.objects.narrow < NARROW).mean())
    if small >= 0.01:
        said.append(
            f"{small:.0%} of the training boxes are narrower than {NARROW:g} pixels in the network's input "
            f"(model.min_size={found.model.min_size}, model.max_size={found.model.max_size}): a larger input "
            "helps to find them."
        )
    limit, most = found.model.head.detections_per_image, max(int(s.box_counts.max(initial=0)) for s in found.splits)
    if most > limit:
        said.append(
            f"An image has {most} boxes, the model returns {limit} at most: set model.head.detections_per_image."
        )
    said += found.anchors.advice()
    return said or ["Nothing is wrong with these data as far as a program can tell."]


def count_inside(twins: Sequence[Twins], number: int) -> int:
    """How many images of split ``number`` have another one of the same split among ``twins``."""
    counts = [sum(image[0] == number for image in group) for group in groups(twins)]
    return sum(count for count in counts if count > 1)


def picture_advice(found: Examination) -> list[str]:
    """What to do about pictures that are alike, thin, nearly black, or turned by EXIF."""
    said = []
    alike = groups([t for t in found.twins if not t.copy])
    if alike:
        frames = [image for group in alike for image in group]
        both = any(len({split for split, _ in group}) > 1 for group in alike)
        said.append(
            f"{counted(len(frames), 'image looks', 'images look')} nearly like another one, but not the same, such as "
            f"{found.image_name(frames[0])} and {found.image_name(frames[1])} (listed in data.json): frames of one "
            "camera? They stay in cleaned copies."
            + (
                " Training and validation both have some: split by camera or time rather than at random."
                if both
                else ""
            )
        )
    for number, s in enumerate(found.splits):
        said += [*orientation_advice(found, number), *depth_advice(s, found.white)]
        thin = np.flatnonzero(resized_sizes(s.read.sizes, found.model).min(axis=1) < NARROW)
        if len(thin):
            height, width = s.read.sizes[thin[0]].tolist()
            said.append(
                f"{counted(len(thin), 'image')} of {s.name} cannot show anything: in the network's input they are "
                f"narrower than {NARROW:g} pixels (model.max_size={found.model.max_size}), such as "
                f"{s.read.file_names[thin[0]]} of {width} x {height} pixels. Leave them out, or cut them into tiles."
            )
    return said


def orientation_advice(found: Examination, number: int) -> list[str]:
    """What to do about pictures of a split that EXIF turns, where their size does not tell how they were annotated."""
    s = found.splits[number]
    evidence, names = s.evidence, s.read.file_names
    if found.exif[number] != "auto" or not len(evidence.undecided):
        return []
    if evidence.shown >= 0:
        why = (
            f"the other entries contradict each other: that of {names[evidence.shown]} has the size as viewers show "
            f"it, that of {names[evidence.stored]} as it is stored"
        )
    else:
        why = "no other entry tells"
    count = len(evidence.undecided)
    return [
        f"{counted(count, 'image')} of {s.name} {'is' if count == 1 else 'are'} turned by EXIF without a change of "
        f"size, such as {names[evidence.undecided[0]]}, and {why}. They are read as viewers show them. If their boxes "
        f"lie beside the objects in augmentation.png, set data.exif=ignore, else data.exif=apply."
    ]


def depth_advice(s: ExaminedSplit, white: int) -> list[str]:
    """What to do about 16-bit files that use only the lower bits."""
    if s.pictures is None:
        return []
    values = s.pictures.brightest[s.pictures.brightest >= 0]
    brightest = int(values.max(initial=0))
    fitting = next((2**bits - 1 for bits in (8, 10, 12, 14) if brightest < 2**bits), white)
    if not len(values) or fitting >= white:
        return []
    return [
        f"The 16-bit images of {s.name} ({len(values):,}) have no value above {brightest:,} and are read nearly black "
        f"(data.white={white}). If they hold {fitting.bit_length()} bits, set data.white={fitting}."
    ]


def class_advice(found: Examination) -> list[str]:
    """What to do about classes that cannot be learned or measured."""
    said = []
    train = dict(zip(found.class_names, found.splits[0].class_counts(found.class_names), strict=True))
    total = np.sum([s.class_counts(found.class_names) for s in found.splits], axis=0)
    unused = [name for name, count in zip(found.class_names, total, strict=True) if not count]
    none = [name for name, count in train.items() if not count]
    few = [f"{name} ({count})" for name, count in train.items() if 0 < count < RARE]
    if none:
        said.append(f"Classes without a box in training, which cannot be learned: {', '.join(none)}.")
    if unused and len(unused) < len(train):
        said.append(f"Classes without a box anywhere, such as a background, are left out with {drop_argument(unused)}.")
    for s in found.splits:
        if s.read.dropped:
            said.append(f"Left out of {s.name} by data.drop_categories: {dropped_classes(s.read.dropped)}.")
    if few:
        said.append(f"Classes with fewer than {RARE} boxes in training: {', '.join(few)}.")
    if len(found.splits) > 1:
        val = found.splits[1].class_counts(found.class_names)
        absent = [name for name, count in zip(found.class_names, val, strict=True) if not count]
        if absent:
            said.append(f"Classes without a box in validation, which have no AP: {', '.join(absent)}.")
        a, b = (dict(zip(s.read.category_ids, s.read.class_names, strict=True)) for s in found.splits)
        if a != b:
            differing = ", ".join(str(c) for c in sorted(a.keys() | b.keys()) if a.get(c) != b.get(c))
            said.append(
                f"The categories of the two files differ (ids {differing}): training refuses that; give both "
                "the same list."
            )
    return said


def drop_argument(names: Sequence[str]) -> str:
    """The argument of a command that leaves the classes ``names`` out."""
    plain = all(re.fullmatch(r"[A-Za-z_][\w-]*", name, re.ASCII) and name.lower() not in WORDS for name in names)
    argument = f"data.drop_categories=[{','.join(names if plain else map(in_quotes, names))}]"
    return argument if plain else shlex.quote(argument)

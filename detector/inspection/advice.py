"""What to do about what the data doctor has found, in sentences."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from detector.data.left_out import drop_argument, dropped_classes
from detector.data.problems import CORRECT, SEEN_BY_INSPECTION
from detector.inspection.doctor import Examination
from detector.words import counted

RARE = 20  # a class with fewer boxes in training is rare
NARROW = 8.0  # short side in pixels of the network's input below which an object is hard to find
BETTER = 0.02  # other anchors are proposed if their recall is higher by this


def advice(found: Examination, written: Collection[str] = ()) -> list[str]:
    """Sentences on what to do about the data, the worst first.

    Args:
        found: by the doctor.
        written: those of ``fix`` and ``fix_val`` whose copies are written already.
    """
    said, train = [], found.splits[0]
    if found.leaks:
        example, shared = found.leaks[0], len({t.first for t in found.leaks})
        said.append(
            f"Training and validation share images: {counted(shared, 'training image is', 'training images are')} in "
            f"validation too, such as {found.image_name(example.first)} as {found.image_name(example.second)}. Scores "
            f"on them are too good{'' if 'fix' in written else '; fix=OUT.json writes a training file without them'}."
        )
    for number, s in enumerate(found.splits):
        again = {t.second for t in found.twins if t.first[0] == t.second[0] == number}
        if again:
            said.append(
                f"{counted(len(again), 'image shows', 'images show')} what another one of {s.name} shows "
                "(listed in data.json)."
            )
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
    if found.anchors is None:
        return [*said, "There is no box to train on."]
    said += class_advice(found)
    small = float((found.narrow < NARROW).mean())
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
    assert found.proposed is not None
    now, then = (f.recall(found.anchors.matched) for f in (found.anchors, found.proposed))
    if then >= now + BETTER:
        said.append(
            f"Other anchors fit better: {then:.0%} instead of {now:.0%} of the training boxes have an anchor "
            f"of IoU {found.anchors.matched:g} or more with {found.proposed.override}"
        )
    return said or ["Nothing is wrong with these data as far as a program can tell."]


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

"""The images with the worst errors of each kind, with their boxes, for the report."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torchvision.transforms.functional import to_pil_image

from detector.data.images import Reading, read_drawn
from detector.evaluation.diagnosis import Diagnosis
from detector.evaluation.errors import KINDS, MISSED
from detector.evaluation.ground_truth import GroundTruth
from detector.exceptions import DataError
from detector.plots.embedded import data_uri
from detector.plots.labels import Rectangle, least_covered, shortened
from detector.words import counted

LONG_SIDE = 480  # pixels of an embedded picture
SHOWN = 12  # errors drawn in one image
TEXT = 0.042  # height of the words in a picture, as a share of its width
ADVANCE = 0.64  # width of a character of bold text, as a share of its height


class Box(NamedTuple):
    """A box in a picture: corner and size in pixels of the image, what it is (a CSS class), and words."""

    x: float
    y: float
    w: float
    h: float
    style: str  # "true" | "found" | "error"
    label: str  # words in the picture
    title: str  # all there is to say, in the tooltip
    at: tuple[float, float] = (0.0, 0.0)  # left end of the base line of the label


@dataclass(frozen=True)
class Card:
    """One image in the gallery; several cards may show the same picture."""

    image_id: int
    file_name: str
    width: int
    height: int
    boxes: list[Box]
    caption: str


class Gallery(NamedTuple):
    """The images with the worst errors."""

    cards: dict[str, list[Card]]  # by kind of error, the most costly kind first
    pictures: dict[int, str]  # data URI of an image by its id
    has_folder: bool  # whether the folder of the images is known


def worst_images(diagnosis: Diagnosis, kind: int, count: int) -> list[int]:
    """Positions of the images with the highest sum of scores of errors of ``kind``; for missed objects, the most.

    Errors below the best threshold of their class count only where no image has others.
    """
    m = diagnosis.matches
    if kind == MISSED:
        image = m.object_image[diagnosis.errors.missed]
        score = np.ones(len(image))
    else:
        wrong = diagnosis.errors.kind == kind
        image, score = m.image[wrong], m.score[wrong] * np.where(diagnosis.kept[wrong], 1.0, 1e-6)
    weight = np.bincount(image, score, minlength=len(m.image_ids))
    order = np.argsort(-weight, kind="stable")[:count]
    return order[weight[order] > 0].tolist()


def make_cards(diagnosis: Diagnosis, truth: GroundTruth, kind: int, count: int) -> list[Card]:
    """Cards of the ``count`` worst images of a kind of error."""
    cards = []
    for image in worst_images(diagnosis, kind, count):
        image_id = int(diagnosis.matches.image_ids[image])
        boxes, caption = _boxes(diagnosis, image, kind)
        height, width = truth.size_of(image_id)
        if not height or not width:  # not in the annotation file: room for all boxes
            height, width = (
                int(max(edges)) + 10 for edges in zip(*((b.y + b.h, b.x + b.w) for b in boxes), strict=True)
            )
        (name,) = truth.names_of([image_id])
        cards.append(Card(image_id, name, width, height, labelled(boxes, width, height), caption))
    return cards


def labelled(boxes: list[Box], width: int, height: int) -> list[Box]:
    """The boxes with their labels where they cover least of each other."""
    taken: list[Rectangle] = []
    placed = []
    for box in boxes:
        if box.label:
            tall = TEXT * width
            size = (ADVANCE * tall * len(box.label), tall)
            ys = (box.y - tall, box.y, box.y + box.h - tall, box.y + box.h)
            x, y = least_covered((box.x, box.x + box.w - size[0]), ys, size, (0, 0, width, height), taken)
            box = box._replace(at=(x, y + 0.85 * tall))
        placed.append(box)
    return placed


def _boxes(diagnosis: Diagnosis, image: int, kind: int) -> tuple[list[Box], str]:
    """The boxes to draw in an image: objects, what is found, and on top the errors of one kind; and a caption."""
    m, errors, names = diagnosis.matches, diagnosis.errors, diagnosis.matches.class_names
    rows, objects = m.by_image[image]

    def box(xywh: np.ndarray, style: str, label: str, title: str) -> Box:
        x, y, w, h = xywh.tolist()
        return Box(x, y, w, h, style, label, title)

    def words(g: int) -> str:
        crowd = "crowd of " if m.crowd[g] else ""
        return f"annotation {m.object_id[g]}: {crowd}{names[m.object_label[g]]}"

    drawn = [box(m.object_boxes[g], "true", "", words(g)) for g in objects]
    for row in rows[diagnosis.true[rows]]:
        title = f"found: {names[m.label[row]]}, score {m.score[row]:.2f}"
        drawn.append(box(m.boxes_xywh[row], "found", "", title))
    if kind == MISSED:
        wrong = objects[errors.missed[objects]]
        for g in wrong[:SHOWN]:
            drawn.append(box(m.object_boxes[g], "error", shortened(names[m.object_label[g]]), words(g)))
    else:
        wrong = rows[errors.kind[rows] == kind]
        kept = wrong[diagnosis.kept[wrong]]
        wrong = kept if len(kept) else wrong[:1]
        for row in wrong[:SHOWN]:
            name, score, about = names[m.label[row]], m.score[row], errors.about[row]
            title = f"{KINDS[kind]}: {name}, score {score:.2f}" + (f", about {words(about)}" if about >= 0 else "")
            drawn.append(box(m.boxes_xywh[row], "error", f"{shortened(name)} {score:.2f}", title))
    part = f", {SHOWN} of them drawn" if len(wrong) > SHOWN else ""
    return drawn, f"{len(wrong)} {KINDS[kind]}{part}; {counted(len(objects), 'object')} in the image"


def picture(folder: Path, card: Card, reading: Reading) -> str | None:
    """The image of a card as a data URI of a small JPEG; None if it cannot be read."""
    try:
        image = to_pil_image(read_drawn(folder / card.file_name, (card.height, card.width), reading))
    except DataError:
        return None
    image.thumbnail((LONG_SIDE, LONG_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return data_uri("image/jpeg", buffer.getvalue())


def make_gallery(
    diagnosis: Diagnosis, truth: GroundTruth, folder: Path | None, reading: Reading, count: int
) -> Gallery:
    """The gallery of a run.

    Args:
        diagnosis: of the run.
        truth: its annotations.
        folder: of the images; None: boxes are drawn on grey.
        reading: how they are read.
        count: images per kind.
    """
    kinds = sorted(range(len(KINDS)), key=lambda k: -diagnosis.errors.cost[KINDS[k]])
    cards = {KINDS[k]: make_cards(diagnosis, truth, k, count) for k in kinds}
    used = {card.image_id: card for some in cards.values() for card in some}
    pictures = {i: picture(folder, card, reading) for i, card in used.items()} if folder else {}
    return Gallery(cards, {i: uri for i, uri in pictures.items() if uri}, folder is not None)

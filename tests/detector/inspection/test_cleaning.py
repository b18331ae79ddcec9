"""A cleaned copy never invents: whatever is damaged, what is left is what was there."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask

from detector.data.coco import CocoDataset
from detector.evaluation.ground_truth import GroundTruth
from detector.exceptions import DataError

SIZES = {"a.png": (40, 60), "b.png": (50, 30), "sub/c.png": (24, 24), "d.png": (30, 64)}
NAMES = ["red", "green", "77", "a b"]
UUID = "9f1c2e6a-5d7b-4c39-8a40-{:012x}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the images of ``SIZES``."""
    folder = tmp_path_factory.mktemp("cleaning")
    for seed, (name, (height, width)) in enumerate(SIZES.items()):
        (folder / name).parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


# ------------------------------------------------------------------------------------------- damage
def other_forms(number):
    """A whole number in the forms that exporters write."""
    return st.sampled_from([number, float(number), str(number), f" {number}", f"{number}.0"])


@st.composite
def boxes(draw, size):
    """(x, y, w, h) of whole numbers, and what an annotation has instead of ``bbox``."""
    height, width = size
    x, y = draw(st.integers(-3, width - 4)), draw(st.integers(-3, height - 4))
    w, h = draw(st.integers(4, width)), draw(st.integers(4, height))
    box = [x, y, w, h]
    inside = x >= 0 and y >= 0 and x + w <= width and y + h <= height
    rows = np.zeros((height, width), dtype=np.uint8, order="F")
    rows[max(y, 0) : y + h, max(x, 0) : x + w] = 1
    compressed = mask.encode(rows)
    flat = rows.ravel(order="F")
    runs = [len(list(group)) for _, group in itertools.groupby(flat.tolist())]
    runs = runs if flat[0] == 0 else [0, *runs]
    turned = [len(list(group)) for _, group in itertools.groupby([0, *rows.ravel(order="C").tolist()])]
    turned[0] -= 1
    polygon = {"segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}
    sides = {"x": x, "y": str(y), "width": w, "height": h}
    forms = [
        {"bbox": box}, {"bbox": [str(v) for v in box]}, {"bbox": str(box)}, {"bbox": sides},
        {"bbox": {"xmin": x, "ymin": y, "xmax": x + w, "ymax": y + h}}, polygon, {"bbox": None, **polygon},
        {"bbox": [0, 0, 0, 0], **polygon},
        {"bbox": [x, math.nan, w, h]}, {"bbox": [x, y, w, 0]}, {"bbox": [x, y, w]}, {}, {"bbox": "none"},
        {"segmentation": [[x, y, x + w]]},
        {"segmentation": {"size": [height, width], "counts": runs[:-1]}},
    ]  # fmt: skip
    if height != width:  # of another picture
        forms.append({"segmentation": {"size": [width, height], "counts": turned}})
    if inside:
        size = [height, width]
        forms.append({"segmentation": {"size": size, "counts": compressed["counts"].decode()}})
        forms.append({"segmentation": {"size": size, "counts": runs}})
    return box, draw(st.sampled_from([{"bbox": box}] * 8 + forms))


@st.composite
def identities(draw, count, texts):
    """(id of the entry, its references) of ``count`` entries: of one kind, or each of its own."""
    numbers = draw(st.lists(st.integers(0, 9), min_size=count, max_size=count, unique=True))
    kind = draw(st.sampled_from(["number", "number", "form", "text", "mixed"]))
    found = []
    for number, text in zip(numbers, texts, strict=True):
        mine = draw(st.sampled_from(["number", "form", "text"])) if kind == "mixed" else kind
        if mine == "text":
            found.append((text, st.just(text)))
        else:
            forms = st.just(number) if mine == "number" else other_forms(number)
            found.append((draw(forms), forms))
    return found


@st.composite
def damaged(draw):
    """A damaged annotation file; each annotation's ``tag`` is its position in the truth: (file, class, box)."""
    files = draw(st.lists(st.sampled_from(list(SIZES)), min_size=1, max_size=4, unique=True))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    texts = [draw(st.sampled_from([name, UUID.format(i)])) for i, name in enumerate(files)]
    image_ids = draw(identities(len(files), texts))
    category_ids = draw(identities(len(names), [UUID.format(99 - i) for i in range(len(names))]))
    images = [{"id": image_ids[i][0], "file_name": name} for i, name in enumerate(files)]
    for entry, name in zip(images, files, strict=True):
        height, width = SIZES[name]
        sizes = [{"height": height, "width": width}] * 6 + [
            {"height": str(height), "width": f"{width}.0"}, {}, {"height": None, "width": width},
            {"height": height + 7, "width": width}, {"height": width, "width": height},
        ]  # fmt: skip
        entry |= draw(st.sampled_from(sizes))
    categories = [{"id": category_ids[k][0], "name": name} for k, name in enumerate(names)]
    for entry in categories:
        if entry["name"] == "77" and draw(st.booleans()):
            entry["name"] = 77
    truth, annotations = [], []
    by_name = draw(st.booleans())
    for tag in range(draw(st.integers(0, 8))):
        i, k = draw(st.integers(0, len(files) - 1)), draw(st.integers(0, len(names) - 1))
        box, given = draw(boxes(SIZES[files[i]]))
        truth.append((files[i], names[k], box))
        refer = draw(st.sampled_from([files[i], *[None] * 5])) if by_name else None
        called = draw(st.sampled_from([names[k], *[None] * 2])) if by_name else None
        entry = {
            "id": tag + 1,
            "image_id": draw(image_ids[i][1]) if refer is None else refer,
            "category_id": draw(category_ids[k][1]) if called is None else called,
            "tag": tag,
            "area": draw(st.sampled_from([box[2] * box[3]] * 4 + [0, -1, None, "12", 1e9, math.nan])),
            "iscrowd": draw(st.sampled_from([0] * 6 + [1, "0", "1", "false", True, False, None, "", 2, math.nan])),
            **given,
        }
        changes = [
            *[{}] * 8, {"id": 0}, {"id": 1}, {"id": None}, {"id": UUID.format(tag)}, {"id": 2.5}, {"ignore": "1"},
            {"image_id": None}, {"image_id": 55}, {"category_id": []}, {"category_id": "none"}, {"image_id": True},
        ]  # fmt: skip
        annotations.append(entry | draw(st.sampled_from(changes)))
    if len(images) > 1 and draw(st.sampled_from([False, False, True])):  # two exports put together
        number = images[0]["id"]
        annotations = [a | {"image_id": number} if truth[a["tag"]][0] == files[1] else a for a in annotations]
        images[1]["id"] = number
    if len(categories) > 1 and draw(st.sampled_from([False, False, True])):
        number = categories[0]["id"]
        annotations = [a | {"category_id": number} if truth[a["tag"]][1] == names[1] else a for a in annotations]
        categories[1]["id"] = number
    spoil = st.sampled_from([{}] * 9 + [{"file_name": "gone.png"}, {"file_name": None}])
    images = [entry | draw(spoil) for entry in images]
    more = st.lists(st.sampled_from([None, "word", 3, [], {}]), max_size=1)
    images, categories, annotations = ([*part, *draw(more)] for part in (images, categories, annotations))
    shuffled = [draw(st.permutations(part)) for part in (images, annotations, categories)]
    return truth, dict(zip(("images", "annotations", "categories"), shuffled, strict=True))


def sound(entries, key, value):
    """The entry that alone has the id ``value``, of the same type; None if there is none."""
    found = [entry for entry in entries if isinstance(entry, dict) and entry.get("id") == value]
    return (
        found[0]
        if len(found) == 1 and "id" in found[0] and type(found[0]["id"]) is type(value) and found[0].get(key)
        else None
    )


def undamaged(truth, content):
    """Tags of the annotations that nothing is wrong with, nor with their image, and that repeat no other box."""
    tags = set()
    for entry in content["annotations"]:
        if not isinstance(entry, dict) or not entry:
            continue
        name, label, box = truth[entry["tag"]]
        height, width = SIZES[name]
        image = sound(content["images"], "file_name", entry["image_id"])
        category = sound(content["categories"], "name", entry["category_id"])
        inside = min(box[:2]) >= 0 and box[0] + box[2] <= width and box[1] + box[3] <= height
        good = image and category and entry.get("bbox") == box and inside and entry["iscrowd"] == 0
        good = good and (image["file_name"], image.get("height"), image.get("width")) == (name, height, width)
        others = [b for tag, (n, k, b) in enumerate(truth) if tag != entry["tag"] and (n, k) == (name, label)]
        if good and (
            not others or mask.iou(np.array([box], float), np.array(others, float), [0] * len(others)).max() < 0.8
        ):
            tags.add(entry["tag"])
    return tags


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(damaged())
def test_what_is_left_is_what_was_there(folder, clean_file, problem):
    truth, content = problem
    file = folder / "train.json"
    file.write_text(json.dumps(content))
    try:
        copy = clean_file(file, folder).content
    except DataError as error:
        assume("none of its" not in str(error))  # no image is there: refused
        raise
    file.write_text(json.dumps(copy))
    if copy["images"] and copy["categories"]:
        assert CocoDataset(file, folder, on_invalid="error").problems == []
    read = GroundTruth(file)
    assert len(read.ids) == len(copy["annotations"])
    files = {entry["id"]: entry["file_name"] for entry in copy["images"]}
    names = {entry["id"]: entry["name"] for entry in copy["categories"]}
    for entry in copy["annotations"]:
        name, label, (x, y, w, h) = truth[entry["tag"]]
        assert (files[entry["image_id"]], names[entry["category_id"]]) == (name, label)
        height, width = SIZES[name]
        clipped = [max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)]
        left, top, across, down = entry["bbox"]
        # Up to a pixel beyond the edge is left alone.
        assert np.abs(np.array([left, top, left + across, top + down]) - clipped).max() <= 1
    assert undamaged(truth, content) <= {entry["tag"] for entry in copy["annotations"]}
    again = clean_file(file, folder)
    assert (again.content, again.changes) == (copy, [])

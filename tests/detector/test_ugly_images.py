"""Data sets as they come: every kind of image file, odd names, very few images, odd ids. Through the scripts."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from detector.data.coco import CocoDataset
from detector.data.images import ORIENTATION
from detector.evaluation.metrics import METRIC_NAMES
from detector.models.checkpoint import load_trained_model

HEIGHT, WIDTH = 48, 64
SMALL = ("data=coco", "data.root=.", "data.batch_size=2", "data.workers=0", "model.weights=none", "model.norm=group",
         "model.min_size=[48]", "model.max_size=96", "model.fpn_channels=8", "model.head.width=8",
         "trainer.accelerator=cpu", "trainer.max_steps=2", "optim.warmup_steps=0", "logger.tensorboard=false",
         "trainer.checkpoint_every=0", "trainer.eval_every=0", "trainer.progress_bar=false",
         "logger.sheet_images=2", "run_dir=run")  # fmt: skip
EVALUATE = ("evaluate", "checkpoint=run", "accelerator=cpu", "workers=0", "resamples=10", "progress_bar=false")


def picture(seed, channels=3, dtype=np.uint8):
    shape = (HEIGHT, WIDTH, channels) if channels > 1 else (HEIGHT, WIDTH)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def ugly(folder):
    """Files of every kind, with odd names; name -> (height, width) as annotation tools write it."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # stored on its left side: tools that turn it say 64 x 48
    sizes = {}

    def save(name, image, size=(HEIGHT, WIDTH), **options):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name, **options)
        sizes[name] = size

    save("16 bit.png", Image.fromarray(picture(1, 1, np.uint16)))
    save("16 bit.tif", Image.fromarray(picture(2, 1, np.uint16)))
    save("grey.jpg", Image.fromarray(picture(3, 1)))
    save("cmyk.jpg", Image.fromarray(picture(4, 4), mode="CMYK"))
    save("as stored.jpg", Image.fromarray(picture(5)), exif=exif)
    save("as shown.jpg", Image.fromarray(picture(6)), size=(WIDTH, HEIGHT), exif=exif)
    save("alpha.png", Image.fromarray(picture(7, 4)))
    save("one bit.png", Image.fromarray(picture(8, 1)).convert("1"))
    save("palette.gif", Image.fromarray(picture(9)).quantize(16))
    save("UPPER.JPEG", Image.fromarray(picture(10)), format="JPEG")
    save("Käfer – 虫.png", Image.fromarray(picture(11)))
    save("a folder/it's, [odd]=100%.png", Image.fromarray(picture(12)))
    save("{x} $HOME #1.png", Image.fromarray(picture(13)))
    return sizes


def write(folder, sizes, categories=((3, "cat"), (7, "dog")), boxes=1):
    """``train.json`` and ``val.json`` of the images, each with ``boxes`` objects of alternating categories."""
    names = sorted(sizes)
    images = [{"id": i, "file_name": name, "height": sizes[name][0], "width": sizes[name][1]}
              for i, name in enumerate(names)]  # fmt: skip
    rows = [{"id": len(names) * k + i + 1, "image_id": i, "category_id": categories[(i + k) % len(categories)][0],
             "bbox": [4, 6, 30, 28], "area": 840, "iscrowd": 0}
            for k in range(boxes) for i in range(len(names))]  # fmt: skip
    content = {"images": images, "annotations": rows, "categories": [{"id": c, "name": n} for c, n in categories]}
    for name in ("train.json", "val.json"):
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def plain(folder, count):
    (folder / "images").mkdir()
    for number in range(count):
        Image.fromarray(picture(number)).save(folder / f"images/{number}.png")
    return {f"{number}.png": (HEIGHT, WIDTH) for number in range(count)}


def succeed(call_script, *arguments):
    code, out, err = call_script(*arguments)
    assert code == 0, err
    assert "Traceback" not in out + err
    return out


@pytest.mark.slow
def test_every_kind_of_image_and_name_is_inspected_trained_on_evaluated_and_drawn(call_script, tmp_path):
    sizes = ugly(tmp_path / "images")
    write(tmp_path, sizes)
    dataset = CocoDataset(tmp_path / "train.json", tmp_path / "images")
    for i, (image, _) in enumerate(dataset):
        assert image.shape == (3, *sizes[dataset.file_path(i).relative_to(tmp_path / "images").as_posix()])
        assert 0 <= image.min() < 0.2  # noise of the whole range, whatever the file holds it as
        assert 0.8 < image.max() <= 1

    succeed(call_script, "inspect_data", *SMALL, "output_dir=look")
    found = json.loads((tmp_path / "look/data.json").read_text())
    assert found["splits"]["train"]["problems"] == []
    succeed(call_script, "train", *SMALL, f"trainer.max_steps={len(sizes) // 2 + 1}")  # every image once
    succeed(call_script, *EVALUATE)
    assert "Käfer – 虫.png" in (tmp_path / "run/evaluate/best/images.csv").read_text(encoding="utf-8")
    out = succeed(call_script, "predict", "checkpoint=run", "source=images", "accelerator=cpu", "workers=0",
                  "score_thresh=0", "draw_thresh=0", "progress_bar=false")  # fmt: skip
    assert f"in {len(sizes)} images" in out
    folder = tmp_path / "run/predict/images"
    assert len([p for p in (folder / "drawn").rglob("*") if p.is_file()]) == len(sizes)
    with open(folder / "predictions.csv", newline="", encoding="utf-8") as file:
        assert {row["image"] for row in csv.DictReader(file)} == set(sizes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("images", "categories", "boxes"),
    [
        (1, ((3, "cat"),), 1),
        (3, ((0, "nothing"), (10**6, "much")), 2),
    ],
    ids=["1 image of 1 class", "ids 0 and 10^6"],
)
def test_small_data_sets_and_odd_ids(call_script, tmp_path, images, categories, boxes):
    write(tmp_path, plain(tmp_path, images), categories, boxes)
    succeed(call_script, "inspect_data", *SMALL, "output_dir=look")
    succeed(call_script, "train", *SMALL, "model.head.score_thresh=0.0")
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["counts"]["images"] == images
    assert all(metrics[name] is None or 0 <= metrics[name] <= 1 for name in METRIC_NAMES)
    found = json.loads((tmp_path / "run/predictions.json").read_text())
    assert {row["category_id"] for row in found} <= {number for number, _ in categories}
    assert found
    succeed(call_script, *EVALUATE, "report=false", "sheet_images=0")
    again = json.loads((tmp_path / "run/evaluate/best/metrics.json").read_text())
    assert [again[n] for n in METRIC_NAMES] == [metrics[n] for n in METRIC_NAMES]


@pytest.mark.slow
def test_a_checkpoint_keeps_how_photographs_were_annotated(call_script, tmp_path):
    """One entry says that its photograph was annotated as it is stored; another one is upside down, and thin ones."""
    sizes, exif = plain(tmp_path, 2), Image.Exif()
    for name, orientation in (("stored.jpg", 6), ("upside.jpg", 3)):
        exif[ORIENTATION] = orientation
        Image.fromarray(picture(5)).save(tmp_path / "images" / name, exif=exif)
        sizes[name] = (HEIGHT, WIDTH)
    write(tmp_path, sizes)
    for name in ("train.json", "val.json"):
        content = json.loads((tmp_path / name).read_text())
        content["images"].append({"id": 99, "file_name": "thin.png", "height": 1, "width": 3000})
        content["annotations"].append({**content["annotations"][0], "id": 99, "image_id": 99, "bbox": [9, 0, 50, 1]})
        (tmp_path / name).write_text(json.dumps(content))
    Image.new("RGB", (3000, 1), "red").save(tmp_path / "images/thin.png")
    succeed(call_script, "train", *SMALL, "trainer.max_steps=3", "model.head.score_thresh=0.0")
    assert load_trained_model(tmp_path / "run/checkpoints/best.ckpt").config.data.exif == "ignore"
    succeed(call_script, *EVALUATE, "report=false", "sheet_images=1")
    out = succeed(call_script, "predict", "checkpoint=run", "source=images", "accelerator=cpu", "workers=0",
                  "progress_bar=false")  # fmt: skip
    assert "in 5 images" in out
    found = json.loads((tmp_path / "run/predict/images/coco.json").read_text())
    assert {i["file_name"]: (i["height"], i["width"]) for i in found["images"]} == {**sizes, "thin.png": (1, 3000)}


@pytest.mark.slow
def test_no_box_at_all(call_script, tmp_path):
    """Nothing to learn is refused in words, before there is a folder."""
    write(tmp_path, plain(tmp_path, 3), boxes=0)
    succeed(call_script, "inspect_data", *SMALL, "output_dir=look")
    code, _, err = call_script("train", *SMALL)
    assert (code, err) == (2, "error: train.json has no box to train on.\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_ten_thousand_by_ten_thousand_pixels(call_script, tmp_path):
    write(tmp_path, plain(tmp_path, 2))
    succeed(call_script, "train", *SMALL, "model.head.score_thresh=0.0")
    (tmp_path / "large").mkdir()
    Image.new("L", (10_000, 10_000), 90).save(tmp_path / "large/map.jpg")
    out = succeed(call_script, "predict", "checkpoint=run", "source=large", "accelerator=cpu", "workers=0",
                  "draw_thresh=0", "progress_bar=false")  # fmt: skip
    assert "in 1 image" in out
    rows = json.loads((tmp_path / "run/predict/large/predictions.json").read_text())
    assert rows
    assert max(row["bbox"][0] + row["bbox"][2] for row in rows) > 5_000
    assert Image.open(tmp_path / "run/predict/large/drawn/map.jpg").size == (10_000, 10_000)

"""Damage, sizes and twins of image files."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from detector.inspection.pictures import find_twins, look_at


def photograph(seed, height=90, width=120):
    """Smooth random colours, as a photograph has them."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def look(folder, names, sizes=None, threads=1):
    sizes = np.array([(90, 120)] * len(names) if sizes is None else sizes)
    read = SimpleNamespace(file_names=np.array(names), image_ids=np.arange(1, len(names) + 1), sizes=sizes)
    return look_at(folder, read, threads, lambda share: None)


@pytest.mark.parametrize("threads", [1, 3])
def test_damage_and_sizes(tmp_path, threads):
    photograph(0).save(tmp_path / "good.jpg")
    photograph(1).save(tmp_path / "small.png")
    whole = (tmp_path / "good.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    turned = photograph(2)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    names = ["good.jpg", "small.png", "cut.jpg", "text.jpg", "empty.jpg", "folder.jpg", "turned.jpg", "gone.jpg"]
    found = look(tmp_path, names, [(90, 120), (91, 120), *[(90, 120)] * 4, (120, 90), (90, 120)], threads)
    assert [(p.kind, p.image_id, p.file) for p in found.problems] == [
        ("wrong_size", 2, "small.png"),
        ("damaged_file", 3, "cut.jpg"),
        ("damaged_file", 4, "text.jpg"),
        ("damaged_file", 5, "empty.jpg"),
        ("damaged_file", 6, "folder.jpg"),
    ]
    assert "the file is 120 x 90 pixels (width x height), the annotation file says 120 x 91" in found.problems[0].what
    assert [bool(d) for d in found.digests] == [True, True, False, False, False, False, True, False]


def test_twins(tmp_path):
    photograph(0).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    photograph(0).save(tmp_path / "c.jpg", quality=60)
    photograph(0, 180, 240).save(tmp_path / "d.jpg", quality=90)
    for seed in (1, 2, 3):
        photograph(seed).save(tmp_path / f"{seed}.png")
    for grey in (100, 101):  # alike, but not like anything
        Image.new("RGB", (120, 90), (grey, grey, grey)).save(tmp_path / f"{grey}.png")
    (tmp_path / "e.png").write_bytes((tmp_path / "1.png").read_bytes())
    train = look(tmp_path, ["1.png", "a.png", "2.png", "100.png", "e.png"])
    val = look(tmp_path, ["3.png", "b.png", "c.jpg", "d.jpg", "101.png", "gone.png"])
    found = [(t.first, t.second, t.same_file) for t in find_twins([train, val], lambda share: None)]
    assert found == [
        ((0, 0), (0, 4), True),
        ((0, 1), (1, 1), True),
        ((0, 1), (1, 2), False),
        ((0, 1), (1, 3), False),
        ((1, 2), (1, 3), False),
    ]


def test_twins_across_the_parts_that_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr("detector.inspection.pictures.ROWS", 2)
    for seed in range(5):
        photograph(seed).save(tmp_path / f"{seed}.png")
    photograph(0).save(tmp_path / "again.jpg")
    found = find_twins([look(tmp_path, [*(f"{seed}.png" for seed in range(5)), "again.jpg"])], lambda share: None)
    assert [(t.first, t.second) for t in found] == [((0, 0), (0, 5))]


def test_twins_of_nothing(tmp_path):
    assert find_twins([look(tmp_path, ["gone.png"])], lambda share: None) == []

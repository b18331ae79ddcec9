"""Damage, sizes and thumbnails of image files, as the data doctor sees them."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from detector.data.images import ORIENTATION, WHITE, read_image
from detector.exceptions import DataError
from detector.inspection.pictures import SIDE, look_at, wrong_sizes


def photograph(seed, height=90, width=120):
    """Smooth random colours, as a photograph has them."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def look(folder, names, threads=1, white=WHITE):
    read = SimpleNamespace(file_names=np.array(names), image_ids=np.arange(1, len(names) + 1))
    return look_at(folder, read, white, threads, lambda share: None)


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
    exif[ORIENTATION] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    names = ["good.jpg", "small.png", "cut.jpg", "text.jpg", "empty.jpg", "folder.jpg", "turned.jpg", "gone.jpg"]
    found = look(tmp_path, names, threads)
    damaged = names[2:6]
    assert [(p.kind, p.image_id, p.file) for p in found.problems] == [
        ("damaged_file", k, name) for k, name in enumerate(damaged, 3)
    ]
    for problem, name in zip(found.problems, damaged, strict=True):
        assert str(tmp_path / name) in problem.what
        assert "object at 0x" not in problem.what
    assert [bool(d) for d in found.digests] == [True, True, False, False, False, False, True, False]
    said = [(90, 120), (91, 120), *[(90, 120)] * 4, (120, 90), (90, 120)]
    read = SimpleNamespace(file_names=np.array(names), image_ids=np.arange(1, 9), sizes=np.array(said))
    (wrong,) = wrong_sizes(read, found.headers)
    assert (wrong.kind, wrong.image_id, wrong.file) == ("wrong_size", 2, "small.png")
    assert "the file is 120 x 90 pixels (width x height), the annotation file says 120 x 91" in wrong.what


def test_the_doctor_finds_damaged_what_training_cannot_read(tmp_path):
    """Every length of a file that is cut off, and every kind of pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    for progressive in (False, True):
        Image.fromarray(noise).save(tmp_path / "whole.jpg", progressive=progressive)
        whole = (tmp_path / "whole.jpg").read_bytes()
        for left in (1, 2, 3, 10, 40, 300, len(whole) // 2, len(whole) - 30):
            (tmp_path / f"{progressive} {left}.jpg").write_bytes(whole[:-left])
    Image.fromarray(noise[:, :, 0].astype(np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(noise).convert("LAB").save(tmp_path / "lab.tif")
    Image.fromarray(noise[:, :, 0].astype(np.int32) * 1000).save(tmp_path / "int.tif")
    Image.fromarray(noise[:, :, 0].astype(np.uint16) * 200).save(tmp_path / "deep.png")
    names = sorted(path.name for path in tmp_path.iterdir())
    unread = []
    for name in names:
        try:
            read_image(tmp_path / name)
        except DataError:
            unread.append(name)
    assert {"float.tif", "int.tif", "True 300.jpg", "False 300.jpg"} <= set(unread)
    assert {"lab.tif", "deep.png", "whole.jpg"}.isdisjoint(unread)
    assert [problem.file for problem in look(tmp_path, names).problems] == unread


def test_thumbnails_use_the_range_of_the_picture(tmp_path):
    """Values of 12 bits in 16-bit files, which are nearly black, are as different as those of 16 bits."""
    ramp = np.repeat(np.arange(SIDE, dtype=np.uint16)[None], SIDE, axis=0)
    for name, factor in (("8.png", 5), ("12.png", 80), ("16.png", 1300), ("few.png", 0)):
        values = ramp * factor
        Image.fromarray(values.astype(np.uint8) if name == "8.png" else values).save(tmp_path / name)
    found = look(tmp_path, ["8.png", "12.png", "16.png", "few.png"])
    expected = np.rint(np.arange(SIDE) * 255 / (SIDE - 1))
    for thumbnail in found.thumbnails[:3]:
        assert np.abs(thumbnail.astype(int) - expected[None, :, None]).max() <= 1
    assert found.flat.tolist() == [False, False, False, True]
    assert found.brightest.tolist() == [-1, 80 * (SIDE - 1), 1300 * (SIDE - 1), 0]

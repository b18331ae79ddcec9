"""A disk that is full ends every script with one message that names the file, and leaves no half of it."""

import errno
import json
import resource
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.config.defaults import default
from detector.config.schema import Config
from detector.exceptions import ConfigError
from detector.files import replacing
from detector.training.run_folder import write_config


@contextmanager
def full_disk(size=10):
    """No file may be longer than ``size`` bytes: the system's error is EFBIG, treated as that of a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def data(tmp_path):
    """One image with one box, as COCO JSON, and a detection of it."""
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "images/1.png")
    box = {"image_id": 1, "category_id": 3, "bbox": [5, 5, 20, 20]}
    content = {
        "images": [{"id": 1, "file_name": "1.png", "height": 40, "width": 60}],
        "annotations": [{**box, "id": 1, "area": 400, "iscrowd": 0}],
        "categories": [{"id": 3, "name": "cat"}],
    }
    for name in ("train.json", "val.json"):
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "found.json").write_text(json.dumps([{**box, "score": 0.5}]))


@pytest.mark.parametrize(
    ("script", "arguments", "file"),
    [
        ("evaluate", ["annotations=val.json", "predictions=found.json", "resamples=0", "report=false"], "metrics.json"),
        ("compare", ["found.json", "found.json", "annotations=val.json", "resamples=0"], "comparison.json"),
        ("inspect_data", ["data=coco", "data.root=.", "sheet_images=0"], "data.json"),
        ("illustrate", ["figure=bin"], "bin.png"),
        ("ablate", ["study=smoke", "study_dir=out"], "cell.json"),
    ],
)
def test_scripts(call_script, data, tmp_path, script, arguments, file):
    folder = [] if script == "ablate" else ["output_dir=out"]
    with full_disk():
        code, _, err = call_script(script, *arguments, *folder)
    assert code == 2
    message = err.strip().splitlines()[-1]
    assert message.startswith("error: ")
    assert message.endswith(": File too large")
    assert Path(message.removeprefix("error: ").removesuffix(": File too large")).name == file
    assert "Traceback" not in err
    assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == []


def test_an_error_without_a_file_gets_its_name(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught, replacing(tmp_path / "a.json"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "a.json")
    with pytest.raises(OSError, match="another") as caught, replacing(tmp_path / "a.json"):
        raise OSError("another mistake")
    assert caught.value.filename is None


def test_an_error_of_a_copy_names_what_cannot_be_written(tmp_path):
    """Lightning copies checkpoints from a temporary file elsewhere; the disk of that one is not full."""
    with pytest.raises(OSError, match="No space left") as caught, replacing(tmp_path / "last.ckpt") as temporary:
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/source", None, str(temporary))
    assert (caught.value.filename, caught.value.filename2) == (str(tmp_path / "last.ckpt"), None)


def test_a_run_that_could_not_take_its_folder_may_take_it_when_there_is_room(tmp_path):
    config = default(Config, run_dir=str(tmp_path / "run"))
    with full_disk(), pytest.raises(ConfigError, match="cannot be written: File too large"):
        write_config(config, None)
    write_config(config, None)
    assert (tmp_path / "run/config.yaml").is_file()

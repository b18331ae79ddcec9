"""Fixtures: the package as somebody else has it, installed from a wheel."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plugin.environments import ROOT, WITHOUT_KERNELS, build_wheel, call, make_environment


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel of this project, built once."""
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"), *WITHOUT_KERNELS)


@pytest.fixture(scope="session")
def plugin_python(wheel, tmp_path_factory):
    """The Python of an environment in which only the wheel is installed, not the clone."""
    return make_environment(tmp_path_factory.mktemp("environment"), wheel)


@pytest.fixture
def run_script(plugin_python, tmp_path):
    """A function: a file and arguments -> the ended process of ``plugin_python FILE ...`` in ``tmp_path``."""

    def run(file, *arguments, **variables):
        return call(plugin_python, file, *arguments, cwd=tmp_path, **variables)

    return run


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Six images to train on and three to evaluate on, of noise, with a box in each."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        images, boxes = [], []
        for n in range(1, count + 1):
            name = f"{split}{n}.png"
            Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / "images" / name)
            images.append({"id": n, "file_name": name, "height": 64, "width": 64})
            boxes.append({"id": n, "image_id": n, "category_id": 1 + n % 2, "bbox": [8, 10, 36, 30], "area": 1080})
        categories = [{"id": 1, "name": "dark"}, {"id": 2, "name": "bright"}]
        content = {"images": images, "annotations": boxes, "categories": categories}
        (folder / f"{split}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def run(run_script):
    """A function: script and arguments -> its last line of output; it runs in ``tmp_path``."""

    def go(name, *arguments):
        done = run_script(Path(__file__).with_name("scripts") / f"{name}.py", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]

    return go

"""The HTML report: what it holds, and that a browser shows it and sorts its table."""

import base64
import itertools
import json
import re
import shutil
import subprocess
from importlib import resources

import numpy as np
import pytest
from PIL import Image

from detector.config.defaults import default
from detector.config.schema import EvaluateConfig
from detector.evaluation.errors import KINDS
from detector.evaluation.evaluate import evaluate_from_config
from detector.evaluation.gallery import ADVANCE, TEXT, Box, labelled

NAMES = ["ant", "bee <b>", "cow & calf", "dog"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight images of four classes with every kind of error, evaluated; class 4 has no object."""
    root = tmp_path_factory.mktemp("report")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    images, annotations, found = [], [], []
    for i in range(1, 9):
        Image.fromarray(rng.integers(0, 255, (120, 200, 3), dtype=np.uint8)).save(root / "images" / f"{i}.jpg")
        images.append({"id": i, "file_name": f"{i}.jpg", "width": 200, "height": 120})
        for x, label in ((5, 1), (70, 2), (140, 3)):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": label,
                    "iscrowd": 0,
                    "bbox": [x, 10, 50, 40],
                    "area": 2000,
                }
            )
        found += [
            {"image_id": i, "category_id": 1, "bbox": [5, 10, 50, 40], "score": 0.9 - i / 100},
            {"image_id": i, "category_id": 1, "bbox": [5, 10, 50, 36], "score": 0.5},  # duplicate
            {"image_id": i, "category_id": 2, "bbox": [70, 10, 50, 15], "score": 0.8},  # localisation
            {"image_id": i, "category_id": 2, "bbox": [70, 11, 50, 40], "score": 0.3 + i / 20},
            {"image_id": i, "category_id": 4 if i % 2 else 2, "bbox": [140, 10, 50, 40], "score": 0.7},  # class
            {"image_id": i, "category_id": 4, "bbox": [140, 30, 50, 40], "score": 0.4},  # both
            {"image_id": i, "category_id": 1, "bbox": [5, 80, 40, 30], "score": 0.6},
        ]  # background
    annotations.append({"id": 99, "image_id": 1, "category_id": 1, "bbox": [100, 80, 30, 30], "area": 900})
    truth = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": k, "name": name} for k, name in enumerate(NAMES, start=1)],
    }
    (root / "gt.json").write_text(json.dumps(truth))
    (root / "dt.json").write_text(json.dumps(found))
    config = default(
        EvaluateConfig,
        annotations=str(root / "gt.json"),
        predictions=str(root / "dt.json"),
        images=str(root / "images"),
        resamples=20,
        gallery_images=3,
        output_dir=str(root / "report"),
    )
    return evaluate_from_config(config).folder


def test_the_report_needs_no_other_file(folder):
    html = (folder / "report.html").read_text()
    links = re.findall(r"(?:src|href)=\"([^\"]*)\"", html)
    assert links
    assert all(link.startswith(("data:image/", "#")) for link in links)
    assert "http" not in re.sub(r"data:image/[^\"]*", "", html)
    assert "@import" not in html
    pictures = [base64.b64decode(link.split(",")[1]) for link in links if link.startswith("data:image/png")]
    assert pictures == [
        path.read_bytes()
        for path in (
            folder / "plots" / f"{name}.png"
            for name in ("errors", "precision_recall", "ap_by_iou", "recall_by_size", "calibration", "confusion")
        )
    ]


def test_names_are_escaped_and_every_kind_of_error_has_images(folder):
    html = (folder / "report.html").read_text()
    assert "<b> " not in html
    assert "bee &lt;b&gt;" in html
    assert "cow &amp; calf" in html
    assert set(re.findall(r'<h3 id="(\w+)">', html)) == set(KINDS)
    assert html.count("<figure>") == 3 * 5 + 1  # one image has a missed object
    ids = set(re.findall(r'<use href="#p(\d+)"', html))
    assert set(re.findall(r'<image id="p(\d+)" href="data:image/jpeg', html)) == ids  # each picture once


def test_labels_in_a_picture_stay_inside_and_apart():
    """Three boxes on top of each other: each label has a place of its own within the picture."""
    boxes = [Box(180, 0, 20, 60, "error", f"name {i}", "") for i in range(3)] + [Box(0, 0, 9, 9, "true", "", "")]
    *placed, plain = labelled(boxes, 200, 120)
    tall = TEXT * 200
    wide = ADVANCE * tall * 6
    spans = sorted((box.at[1], box.at[0]) for box in placed)
    assert all(0 <= x <= 200 - wide and tall * 0.85 <= y <= 120 for y, x in spans)
    assert all(b[0] - a[0] >= 0.99 * tall or b[1] - a[1] >= wide for a, b in itertools.pairwise(spans))
    assert plain == boxes[-1]


def test_the_template_is_a_file_of_the_package():
    assert resources.files("detector.evaluation").joinpath("templates", "report.html").is_file()


@pytest.fixture(scope="module")
def browse(folder, tmp_path_factory):
    """``browse(script)`` opens the report in headless Chromium, runs ``script`` in it and returns what it returns."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")

    def run(script):
        profile = tmp_path_factory.mktemp("profile")
        page = profile / "page.html"
        ending = f"""<script>
            window.failures = []; window.addEventListener("error", (e) => failures.push(e.message));
            window.addEventListener("load", () => {{
                const answer = (() => {{ {script} }})();
                document.body.innerHTML = "";
                document.body.textContent = "ANSWER" + JSON.stringify({{answer, failures}}) + "END";
            }});</script>"""
        page.write_text((folder / "report.html").read_text() + ending)
        printed = subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-sync",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-quic",
                f"--user-data-dir={profile}",
                "--dump-dom",
                page.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout
        found = json.loads(
            re.search(r"ANSWER(.*)END", printed, re.S)
            .group(1)
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&")
        )
        assert found["failures"] == []
        return found["answer"]

    return run


@pytest.mark.slow
def test_the_table_sorts_in_a_browser(browse):
    names, falling, rising, by_name, big, drawn = browse("""
        const names = () => [...document.querySelectorAll("#classes tbody tr")].map((row) => row.cells[0].textContent);
        const click = (name) => [...document.querySelectorAll("#classes th button")]
            .find((button) => button.textContent === name).click();
        const answer = [names()];
        click("AP"); answer.push(names());
        click("AP"); answer.push(names());
        click("class"); answer.push(names());
        const figure = document.querySelector("figure"), before = figure.getBoundingClientRect().width;
        figure.click();
        answer.push(figure.getBoundingClientRect().width > 2 * before);
        answer.push([...document.images].every((image) => image.complete && image.naturalWidth > 0));
        return answer;""")
    assert names == NAMES
    # AP: ant is found with duplicates, bee with false boxes, cow never, dog has no object and comes last both ways.
    assert falling == ["ant", "bee <b>", "cow & calf", "dog"]
    assert rising == ["cow & calf", "bee <b>", "ant", "dog"]
    assert by_name == NAMES
    assert (big, drawn) == (True, True)

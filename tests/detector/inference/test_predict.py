import csv
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import detector
from detector.config.defaults import default
from detector.config.schema import EvaluateConfig, PredictConfig
from detector.data.annotations import parse_annotations
from detector.evaluation.detections import Detections
from detector.evaluation.evaluate import evaluate_from_config
from detector.evaluation.scoring import evaluate
from detector.exceptions import ConfigError, DataError
from detector.inference import video
from detector.inference.predict import choose_ids, output_folder, predict
from detector.inference.video import VideoReader, VideoWriter

ROOT = Path(__file__).resolve().parents[3]


def settings(**changes):
    return default(PredictConfig, **{"accelerator": "cpu", "workers": 0, "progress_bar": False, **changes})


def test_results_score_as_evaluation_does(checkpoint, data_set, tmp_path):
    images, truth = data_set / "images", data_set / "val.json"
    summary = predict(settings(checkpoint=str(checkpoint), source=str(images), annotations=str(truth)))
    config = default(
        EvaluateConfig,
        checkpoint=str(checkpoint),
        accelerator="cpu",
        workers=0,
        sheet_images=0,
        report=False,
        resamples=0,
        progress_bar=False,
    )
    evaluated = evaluate_from_config(config)
    assert summary.folder == checkpoint.parent / "predict" / "images"
    assert (summary.images, summary.detections) == (5, 25)
    written = Detections.from_json(summary.folder / "predictions.json")
    assert evaluate(truth, written).metrics == evaluated.result.metrics
    assert (summary.folder / "predictions.json").read_text() == (evaluated.folder / "predictions.json").read_text()


def test_a_folder_without_annotations(checkpoint, data_set):
    summary = predict(
        settings(checkpoint=str(checkpoint), source=str(data_set / "images"), batch_size=1, draw_thresh=0.0)
    )
    assert sorted(p.name for p in summary.folder.iterdir()) == [
        "coco.json",
        "drawn",
        "predictions.csv",
        "predictions.json",
    ]
    names = ["10.png", "20.png", "30.png", "40.png", "50.png"]
    assert sorted(p.name for p in (summary.folder / "drawn").iterdir()) == names
    found = detector.load(checkpoint, "cpu")(data_set / "images" / "40.png")[0]
    results = [r for r in json.loads((summary.folder / "predictions.json").read_text()) if r["image_id"] == 4]
    assert [r["score"] for r in results] == found.scores.tolist()
    assert [r["category_id"] for r in results] == [{"cat": 3, "dog": 7}[name] for name in found.names]
    with open(summary.folder / "predictions.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["image"] == "40.png"]
    assert [row["name"] for row in rows] == found.names
    assert [[float(row[key]) for key in ("x1", "y1", "x2", "y2")] for row in rows] == [
        pytest.approx(box, abs=0.006) for box in found.boxes.tolist()
    ]
    coco = json.loads((summary.folder / "coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == names
    assert {(image["height"], image["width"]) for image in coco["images"]} == {(64, 64), (48, 80)}
    assert [a["score"] for a in coco["annotations"] if a["image_id"] == 4] == found.scores.tolist()
    drawn = np.asarray(Image.open(summary.folder / "drawn" / "40.png"))
    assert (drawn != np.asarray(Image.open(data_set / "images" / "40.png"))).any()


def test_one_image_and_a_pattern(checkpoint, data_set, tmp_path):
    image = data_set / "images" / "40.png"
    alone = predict(settings(checkpoint=str(checkpoint), source=str(image), draw=False))
    assert alone.folder == checkpoint.parent / "predict" / "40"
    assert alone.images == 1
    assert sorted(p.name for p in alone.folder.iterdir()) == ["coco.json", "predictions.csv", "predictions.json"]
    some = predict(
        settings(
            checkpoint=str(checkpoint),
            source=str(data_set / "images" / "[34]*.png"),
            draw=False,
            output_dir=str(tmp_path / "out"),
        )
    )
    assert some.images == 2
    pattern = settings(checkpoint="RUN/checkpoints/last.ckpt", source=str(data_set / "ima*" / "*.png"))
    assert output_folder(pattern) == Path("RUN/predict/data")


def test_images_of_any_shape_cost_the_others_nothing(checkpoint, data_set):
    keys = {"checkpoint": str(checkpoint), "source": str(data_set / "images"), "batch_size": 1}
    alone = predict(settings(**keys, draw=False))
    before = json.loads((alone.folder / "predictions.json").read_text())
    for name, shape in (("x.png", (1, 3000)), ("y.png", (3000, 1)), ("z.png", (1, 1))):
        Image.fromarray(np.full((*shape, 3), 99, np.uint8)).save(data_set / "images" / name)
    summary = predict(settings(**keys, overwrite=True))
    assert (summary.images, summary.unreadable) == (8, 0)
    after = json.loads((summary.folder / "predictions.json").read_text())
    assert after[: len(before)] == before
    assert len(list((summary.folder / "drawn").iterdir())) == 8


@pytest.mark.parametrize(("exif", "upright"), [("auto", True), ("apply", True), ("ignore", False)])
def test_photographs_are_turned_as_in_training(checkpoint, data_set, exif, upright):
    """A detector trained on pictures as they are stored is shown them as they are stored."""
    saved = torch.load(checkpoint, weights_only=True)
    saved["hyper_parameters"]["config"]["data"]["exif"] = exif
    torch.save(saved, checkpoint)
    (data_set / "one").mkdir()
    pixels, tag = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8), Image.Exif()
    tag[0x0112] = 6
    Image.fromarray(pixels).save(data_set / "one" / "a.png", exif=tag)
    summary = predict(settings(checkpoint=str(checkpoint), source=str(data_set / "one")))
    (image,) = json.loads((summary.folder / "coco.json").read_text())["images"]
    assert (image["width"], image["height"]) == ((40, 60) if upright else (60, 40))
    one = detector.load(checkpoint, "cpu")
    (found,) = one(data_set / "one" / "a.png")
    expected = one.raw([torch.from_numpy(np.rot90(pixels, -1 if upright else 0).copy()).permute(2, 0, 1) / 255])
    assert torch.equal(found.boxes, expected[0]["boxes"])
    assert found.draw(data_set / "one" / "a.png").size == ((40, 60) if upright else (60, 40))


def test_white_of_16_bit_images_is_that_of_training(checkpoint, data_set):
    saved = torch.load(checkpoint, weights_only=True)
    saved["hyper_parameters"]["config"]["data"]["white"] = 4095
    torch.save(saved, checkpoint)
    pixels = np.random.default_rng(0).integers(0, 4096, (40, 60), dtype=np.uint16)
    Image.fromarray(pixels).save(data_set / "deep.png")
    one = detector.load(checkpoint, "cpu")
    scaled = torch.from_numpy(pixels.astype(np.float32) / np.float32(4095)).expand(3, 40, 60)
    for kind in (data_set / "deep.png", Image.open(data_set / "deep.png")):
        assert torch.equal(one(kind)[0].boxes, one(scaled)[0].boxes)
    summary = predict(settings(checkpoint=str(checkpoint), source=str(data_set / "deep.png"), score_thresh=0.0))
    rows = json.loads((summary.folder / "predictions.json").read_text())
    assert [row["score"] for row in rows] == pytest.approx(one(scaled)[0].scores.tolist(), abs=1e-5)


def test_a_damaged_image_is_left_out(checkpoint, data_set, caplog):
    (data_set / "images" / "20.png").write_bytes(b"not a picture")
    summary = predict(settings(checkpoint=str(checkpoint), source=str(data_set / "images"), batch_size=2))
    assert (summary.images, summary.unreadable) == (4, 1)
    assert "20.png" in caplog.text
    assert "replace or remove the file" in caplog.text
    assert "1 could not be read" in summary.__rich__()
    for path in (data_set / "images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="no image could be read"):
        predict(settings(checkpoint=str(checkpoint), source=str(data_set / "images"), overwrite=True))


def test_mistakes(checkpoint, data_set, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("")
    cases = [
        ({"source": "x"}, ConfigError, "give checkpoint="),
        ({"checkpoint": "x"}, ConfigError, "source="),
        ({"source": "nowhere"}, DataError, "no such file or folder"),
        ({"source": str(tmp_path / "empty")}, DataError, "is empty"),
        ({"source": str(tmp_path / "text")}, DataError, r"ending in \.txt"),
        ({"source": str(data_set / "images" / "x*")}, DataError, "0 files match"),
        (
            {"source": str(data_set / "val.json"), "annotations": str(data_set / "val.json")},
            ConfigError,
            "the folder of their images",
        ),
    ]
    for keys, error, says in cases:
        defaults = {} if "give" in says or says == "source=" else {"checkpoint": str(checkpoint)}
        with pytest.raises(error, match=says):
            predict(settings(**{**defaults, **keys}))


def test_two_mistakes_are_both_named(checkpoint):
    with pytest.raises(ConfigError) as caught:
        predict(settings(checkpoint="gone.ckpt", source="nowhere"))
    assert "source=nowhere: there is no such file or folder" in str(caught.value)
    assert "gone.ckpt: there is no such checkpoint" in str(caught.value)
    with pytest.raises(ConfigError, match=r"^give source=IMAGE, FOLDER, 'PATTERN' or VIDEO$"):
        predict(settings(checkpoint=str(checkpoint)))


def test_results_are_not_overwritten(checkpoint, data_set):
    config = settings(checkpoint=str(checkpoint), source=str(data_set / "images"))
    folder = predict(config).folder
    with pytest.raises(ConfigError, match="overwrite=true"):
        predict(config)
    (data_set / "images" / "10.png").unlink()
    config.overwrite = True
    predict(config)
    assert not (folder / "drawn" / "10.png").exists()


def test_images_without_ground_truth(checkpoint, data_set, tmp_path):
    """As COCO's image_info files of test images; results carry the ids of the file."""
    content = json.loads((data_set / "val.json").read_text())
    images = [{"id": entry["id"], "file_name": entry["file_name"]} for entry in content["images"]]
    (data_set / "info.json").write_text(json.dumps({"images": images[:4], "categories": content["categories"]}))
    keys = {"checkpoint": str(checkpoint), "source": str(data_set / "images"), "draw": False}
    whole = predict(settings(**keys, annotations=str(data_set / "val.json"), output_dir=str(tmp_path / "whole")))
    bare = predict(settings(**keys, annotations=str(data_set / "info.json"), output_dir=str(tmp_path / "bare")))
    rows = json.loads((whole.folder / "predictions.json").read_text())
    assert json.loads((bare.folder / "predictions.json").read_text()) == [r for r in rows if r["image_id"] != 51]
    assert len(rows) == 25


@pytest.mark.parametrize(
    ("categories", "expected", "words"),
    [
        ([], [3, 7], ""),
        ([(3, "cat"), (7, "dog")], [3, 7], ""),
        ([(1, "dog"), (2, "cat")], [2, 1], "cat 3 -> 2, dog 7 -> 1"),
        ([(1, "dog"), (2, "cat"), (3, "cow")], [2, 1], "cat 3 -> 2, dog 7 -> 1"),  # more
        ([(3, "cat")], [3, 7], "no class dog"),  # fewer
        ([(7, "cat")], [7, 8], "cat 3 -> 7, dog 7 -> 8"),  # 7 means another class there
        ([(1, "bus"), (90, "car")], [3, 7], "no class cat, dog"),  # others
        ([(3, "bus")], [8, 7], "cat 3 -> 8"),
    ],
)
def test_category_ids_in_results_for_an_annotation_file(tmp_path, categories, expected, words):
    content = {"images": [], "categories": [{"id": i, "name": name} for i, name in categories], "annotations": []}
    read = parse_annotations(tmp_path / "a.json", content, need_pictures=False)
    ids, note = choose_ids(["cat", "dog"], [3, 7], read)
    assert ids == expected
    assert words in note
    assert bool(note) == bool(words)


def test_drawings_stay_in_their_folder_and_replace_none(checkpoint, tmp_path):
    """The names of an annotation file may be absolute, repeat, or differ in what drawings do not keep."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name in ("x.jpg", "x.png", "x.bmp", "x.bmp.png", "sub/x.jpg", "X.jpg"):
        Image.fromarray(smooth(3)).save(folder / name)
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    names = [
        "x.jpg",
        str(folder / "x.png"),
        "sub/../x.bmp",
        "x.bmp.png",
        "sub/x.jpg",
        "X.jpg",
        "x.jpg",
        "../photos/x.jpg",
    ]
    entries = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    (tmp_path / "info.json").write_text(json.dumps({"images": entries}))
    keys = {"source": str(folder), "annotations": str(tmp_path / "info.json"), "output_dir": str(tmp_path / "out")}
    assert predict(settings(checkpoint=str(checkpoint), **keys)).images == 8
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before
    assert len([path for path in (tmp_path / "out" / "drawn").rglob("*") if path.is_file()]) == 8


def test_sources_of_one_name_have_folders_of_their_own(checkpoint, tmp_path):
    for name in ("a/x.jpg", "b/x.jpg", "b/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(smooth(len(name))).save(tmp_path / name)
    keys = {"checkpoint": str(checkpoint), "draw": False}
    sources = [str(tmp_path / name) for name in ("a/x.jpg", "b/x.jpg", "b/x.png")]
    folders = [predict(settings(**keys, source=source, overwrite=True)).folder.name for source in sources]
    assert folders == ["x", "x-2", "x-3"]
    with pytest.raises(ConfigError, match=r"predict/x-2 holds .* overwrite=true"):
        predict(settings(**keys, source=sources[1]))
    assert predict(settings(**keys, source=sources[1], overwrite=True)).folder.name == "x-2"


def test_the_folder_of_a_name_with_brackets(tmp_path):
    (tmp_path / "imgs[1]").mkdir()
    for source in ("imgs[1]", "imgs[1]/*.png"):
        assert output_folder(settings(checkpoint="RUN/a.ckpt", source=str(tmp_path / source))).name == "imgs[1]"


def test_the_summary_counts_what_was_not_read(checkpoint, data_set):
    for name in ("notes.txt", "movie.mp4", "Thumbs.db"):
        (data_set / "images" / name).touch()
    still = Image.fromarray(smooth(1))
    still.save(data_set / "images" / "60.gif", save_all=True, append_images=[Image.fromarray(smooth(2))])
    (data_set / "images" / "20.png").write_bytes(b"not a picture")
    summary = predict(settings(checkpoint=str(checkpoint), source=str(data_set / "images"), draw=False))
    assert (summary.images, summary.unreadable, summary.first_only) == (5, 1, 1)
    said = summary.__rich__()
    for words in ("1 could not be read", "2 other files skipped (1 .mp4, 1 .txt)", "only the first frame or page"):
        assert words in said
    alone = predict(settings(checkpoint=str(checkpoint), source=str(data_set / "images" / "60.gif"), draw_thresh=0.0))
    assert (alone.images, alone.first_only) == (2, 0)
    assert {path.name for path in (alone.folder / "drawn").iterdir()} == {"frame_000001.png", "frame_000002.png"}


# ------------------------------------------------------------------------------------------------ videos
def smooth(number, height=48, width=66):
    """A picture that compresses well: a bright square that moves over a gradient."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 200, width)
    pixels[..., 1] = 90
    pixels[16:32, 4 * number : 4 * number + 16] = 220
    return pixels


@pytest.fixture
def movie(tmp_path):
    """Nine frames, 12 a second with a gap of a second after the fifth."""
    pytest.importorskip("av")
    path = tmp_path / "movie.mp4"
    writer = VideoWriter(path, Fraction(12), Fraction(1, 12))
    for number in range(9):
        writer.write(smooth(number), number + 12 * (number > 4))
    writer.close()
    return path


def test_a_video_round_trips(movie):
    reader = VideoReader(movie)
    frames = list(reader.frames())
    assert reader.length == len(frames) == 9
    for number, frame in enumerate(frames):
        assert frame.image.shape == (3, 48, 66)
        assert frame.seconds == pytest.approx(number / 12 + (number > 4), abs=1e-3)
        expected = torch.from_numpy(smooth(number)).permute(2, 0, 1) / 255
        assert (frame.image - expected).abs().mean() < 0.03


def test_odd_sizes_are_padded_to_even_ones(tmp_path):
    pytest.importorskip("av")
    writer = VideoWriter(tmp_path / "odd.mp4", Fraction(5), Fraction(1, 5))
    writer.write(np.full((33, 47, 3), 100, np.uint8), 0)
    writer.close()
    (frame,) = VideoReader(tmp_path / "odd.mp4").frames()
    assert frame.image.shape == (3, 34, 48)
    assert (frame.image - 100 / 255).abs().max() < 0.03


def test_predict_on_a_video(checkpoint, movie, tmp_path):
    summary = predict(settings(checkpoint=str(checkpoint), source=str(movie), batch_size=4, draw_thresh=0.0))
    assert summary.images == 9
    # The video is drawn in place of a folder of images.
    names = ["coco.json", "drawn.mp4", "predictions.csv", "predictions.json"]
    assert sorted(path.name for path in summary.folder.iterdir()) == names
    drawn = list(VideoReader(summary.folder / "drawn.mp4").frames())
    originals = list(VideoReader(movie).frames())
    assert [f.seconds for f in drawn] == pytest.approx([f.seconds for f in originals], abs=1e-3)
    assert drawn[0].image.shape == originals[0].image.shape
    assert (drawn[0].image - originals[0].image).abs().max() > 0.2
    results = json.loads((summary.folder / "predictions.json").read_text())
    assert {r["image_id"] for r in results} == set(range(1, 10))
    one = detector.load(checkpoint, "cpu")([frame.image for frame in originals[:4]], batch_size=4)
    assert [r["score"] for r in results if r["image_id"] == 3] == pytest.approx(one[2].scores.tolist(), abs=1e-5)
    with open(summary.folder / "predictions.csv", newline="") as file:
        times = {row["image"]: row["seconds"] for row in csv.DictReader(file)}
    assert times["frame_000006"] == "1.417"


def test_without_the_video_library_the_error_names_the_extra(movie, checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DataError, match=r"multiscale-rcnn\[video\]"):
        predict(settings(checkpoint=str(checkpoint), source=str(movie)))


def test_what_is_no_video(tmp_path):
    pytest.importorskip("av")
    (tmp_path / "a.mp4").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="cannot be read as a video"):
        VideoReader(tmp_path / "a.mp4")
    assert video.library()


@pytest.mark.slow
def test_the_script(checkpoint, data_set, call_script):
    command = [
        sys.executable,
        "scripts/predict.py",
        f"checkpoint={checkpoint}",
        f"source={data_set / 'images'}",
        "accelerator=cpu",
        "workers=1",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "25 detections in 5 images" in done.stdout
    assert str(checkpoint.parent / "predict" / "images") in done.stdout
    code, _, err = call_script("predict", *command[2:])
    assert code == 2
    assert "overwrite=true" in err
    assert "Traceback" not in err

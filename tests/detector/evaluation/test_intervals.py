import numpy as np
import pytest
from coco_problems import problems, read
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.evaluation import pycocotools_evaluator
from detector.evaluation.detections import Detections
from detector.evaluation.ground_truth import GroundTruth
from detector.evaluation.intervals import Interval, interval, measure, replicate, resample
from detector.evaluation.matches import FALSE, TRUE, Matches, match
from detector.evaluation.metrics import AREAS, IOU_THRESHOLDS


def repeated(problem, weights):
    """The files of ``problem`` with each image, by rising id, as often as ``weights`` says."""
    truth, entries = problem
    ids = sorted(image["id"] for image in truth["images"])
    copies = {
        image: [100 * (place + 1) + c for c in range(w)]
        for place, (image, w) in enumerate(zip(ids, weights, strict=True))
    }
    annotations = [{**a, "image_id": c} for a in truth["annotations"] for c in copies[a["image_id"]]]
    annotations = [{**a, "id": number} for number, a in enumerate(annotations, start=1)]
    images = [{"id": c} for some in copies.values() for c in some]
    return (
        {**truth, "images": images, "annotations": annotations},
        [{**e, "image_id": c} for e in entries for c in copies[e["image_id"]]],
    )


# ------------------------------------------------------------------------------------------- replicates
@given(problems(ids=st.integers(1, 60)), st.sampled_from([1, 2, 100]), st.data())
@settings(max_examples=100)
def test_a_weight_is_the_image_repeated(problem, limit, data):
    """Against pycocotools on files in which the images really are repeated, or left out.

    Copies of detections with one class and score in one image come in another order there: such are left out."""
    problem = problem[0], list({(e["image_id"], e["category_id"], e["score"]): e for e in problem[1]}.values())
    truth, detections = read(problem)
    count = len(truth.image_ids)
    weights = np.array(
        data.draw(st.lists(st.lists(st.integers(0, 3), min_size=count, max_size=count), min_size=1, max_size=3))
    )
    found = replicate(match(truth, detections, max_detections=limit), weights)
    for b, row in enumerate(weights):
        again, repeats = read(repeated(problem, row))
        theirs = pycocotools_evaluator.accumulate(again, repeats, again.image_ids, max_detections=limit)
        for name, value in theirs.metrics().items():
            if limit == 1 and name == "AR10":
                continue  # means the limit
            mine = found.metrics()[name][b]
            assert np.isnan(mine) if value is None else mine == pytest.approx(value, abs=1e-12), name
        for k in range(len(truth.category_ids)):
            precision = theirs.precision[:, :, k, 0, -1]
            expected = np.where(precision[:, 0] < 0, np.nan, precision.mean(axis=1))
            np.testing.assert_allclose(found.ap[:, k, b], expected, atol=1e-12)
            np.testing.assert_allclose(found.by_class()["AP"][k, b], expected.mean(), atol=1e-12)
        known = theirs.precision[:, 0, :, 0, -1] >= 0
        expected = theirs.by_iou() if known.any() else np.nan
        np.testing.assert_allclose(found.by_iou()[:, b], expected, atol=1e-12)


def test_chunks_of_resamples_do_not_matter(monkeypatch):
    matches = simulated(np.random.default_rng(0), 30, 0.7)
    weights = resample(30, 20)
    whole = replicate(matches, weights)
    monkeypatch.setattr("detector.evaluation.intervals.CHUNK", 7)
    parts = replicate(matches, weights)
    for name, values in whole.metrics().items():
        np.testing.assert_array_equal(values, parts.metrics()[name], name)


def test_weights_of_another_number_of_images():
    with pytest.raises(ValueError, match="weights of 30 images are wanted"):
        replicate(simulated(np.random.default_rng(0), 30, 0.7), np.ones((2, 31)))


def test_resamples_draw_as_many_images_with_replacement():
    weights = resample(50, 400, seed=3)
    assert (weights.sum(axis=1) == 50).all()
    assert weights.min() == 0
    assert weights.mean(axis=0) == pytest.approx(1, abs=0.25)  # each mean has a standard deviation of 0.05
    assert weights.var() == pytest.approx(1 - 1 / 50, abs=0.05)
    assert (weights == resample(50, 400, seed=3)).all()
    assert (weights != resample(50, 400, seed=4)).any()
    assert resample(0, 3).shape == (3, 0)


# -------------------------------------------------------------------------------------------- intervals
def test_an_interval_by_hand():
    values = np.append(np.arange(101) / 100, np.nan)  # mean 0.5, quantiles 0.025 and 0.975
    assert interval(0.4, values) == pytest.approx(Interval(0.4, 0.4 - 0.475, 0.4 + 0.475))
    assert interval(0.4, values, level=0.5) == pytest.approx(Interval(0.4, 0.15, 0.65))
    assert all(np.isnan(interval(None, values)))
    assert interval(0.9, values, possible=(0, 1)) == pytest.approx(Interval(0.9, 0.425, 1))
    assert interval(0.5, np.array([np.nan]))[0] == 0.5
    assert np.isnan(interval(0.5, np.array([]))[1:]).all()
    assert Interval(0.2, 0.1, 0.3).excludes_zero
    assert Interval(-0.2, -0.3, -0.1).excludes_zero
    assert not Interval(0.1, -0.1, 0.3).excludes_zero
    assert not interval(None, values).excludes_zero


def simulated(rng, images, quality, offset=None):
    """Matches of a made-up detector in one class: each image has 0 to 4 objects of which it finds a share ``quality``,
    with a random IoU, and up to 3 false positives of lower scores. ``offset`` makes images easier or harder."""
    offset = np.zeros(images) if offset is None else offset
    objects = np.repeat(np.arange(images), rng.integers(0, 5, images))
    wrong = np.repeat(np.arange(images), rng.integers(0, 4, images))
    # Drawn for all objects whatever the quality, so that two detectors of one seed see the same.
    luck, iou, sure = rng.random(len(objects)), rng.uniform(0.5, 1, len(objects)), rng.beta(4, 2, len(objects))
    hit = luck < np.clip(quality + offset[objects], 0, 1)
    found, iou = objects[hit], iou[hit]
    image = np.concatenate([found, wrong])
    score = np.concatenate([sure[hit], rng.beta(2, 4, len(wrong))])
    outcome = np.full((len(IOU_THRESHOLDS), len(image)), FALSE, dtype=np.uint8)
    outcome[:, : len(found)] = np.where(iou >= IOU_THRESHOLDS[:, None], TRUE, FALSE)
    order = np.argsort(-score)
    image, score, outcome = image[order], score[order], outcome[:, order]
    count, total = len(image), len(objects)
    zeros = lambda n: np.zeros(n, dtype=np.int32)
    return Matches(
        np.arange(images),
        [1],
        ["thing"],
        100,
        np.array([count]),
        np.arange(count),
        image.astype(np.int32),
        zeros(count),
        zeros(count),
        score,
        np.full((count, 4), 50.0),
        np.full(count, 2500.0),
        np.repeat(outcome[None], len(AREAS), axis=0),
        np.full(outcome.shape, -1, dtype=np.int32),
        np.arange(total),
        objects.astype(np.int32),
        zeros(total),
        np.full((total, 4), 50.0),
        np.full(total, 2500.0),
        np.zeros(total, dtype=bool),
        np.array([[True], [False], [True], [False]]) & np.ones(total, dtype=bool),
    )


@pytest.mark.slow
def test_intervals_cover_the_truth():
    """100 images per data set, easy and hard ones; the truth is the mean of 1,500 data sets. Of 400 intervals of 95 %,
    between 90 % and 99 % hold it, for a number and for the difference of two detectors on the same images."""
    rng = np.random.default_rng(0)

    def data_set():
        """Two detectors on the same images: what is hard for one is hard for the other."""
        offset = rng.normal(0, 0.2, 100)
        seed = int(rng.integers(2**31))
        return [simulated(np.random.default_rng(seed), 100, quality, offset) for quality in (0.6, 0.65)]

    def numbers(run):
        return run.accumulated().metrics()

    truths = [[numbers(run) for run in data_set()] for _ in range(1500)]
    for name in ("AP", "AP50", "AR100"):
        worse, better = (np.mean([pair[i][name] for pair in truths]) for i in (0, 1))
        assert better - worse > 0.01
    held = {"AP": 0, "AP50": 0, "AR100": 0, "difference": 0}
    for number in range(400):
        runs = data_set()
        first, second = measured(runs, resamples=200, seed=number)
        found = {**first.intervals().metrics, "difference": second.minus(first).metrics["AP"]}
        for name in held:
            given = found[name]
            means = [np.mean([pair[i]["AP" if name == "difference" else name] for pair in truths]) for i in (0, 1)]
            truth = means[1] - means[0] if name == "difference" else means[0]
            held[name] += given.low <= truth <= given.high
    assert all(360 <= count <= 396 for count in held.values()), held


# ------------------------------------------------------------------------------------------- differences
def measured(runs, resamples=1000, seed=0):
    """The runs with the same resamples of their images."""
    weights = resample(len(runs[0].image_ids), resamples, seed)
    return [measure(run, weights) for run in runs]


def test_a_run_does_not_differ_from_itself():
    run = simulated(np.random.default_rng(0), 40, 0.7)
    base, again = measured([run, run], resamples=50)
    difference = again.minus(base)
    medium = {"AP", "AP50", "AP75", "APm", "AR1", "AR10", "AR100", "ARm"}
    assert {name for name, value in difference.metrics.items() if value == (0, 0, 0)} == medium
    assert np.isnan(difference.metrics["APs"].value)
    assert difference.by_iou == [(0, 0, 0)] * 10
    assert difference.by_class["AP"] == [(0, 0, 0)]


def test_pairing_is_sharper_than_two_intervals_and_counts_from_the_first_run():
    """The same detector, but for one in three finds: a clear difference although the intervals of the two overlap."""
    rng = np.random.default_rng(1)
    offset = rng.normal(0, 0.35, 60)
    runs = [simulated(np.random.default_rng(5), 60, quality, offset) for quality in (0.6, 0.7)]
    worse, better, again = measured([*runs, runs[0]])
    first, second = (run.intervals().metrics["AR100"] for run in (worse, better))
    assert first.high > second.low
    assert first.value < second.value
    up = better.minus(worse).metrics["AR100"]
    assert up.excludes_zero
    assert up.value == pytest.approx(second.value - first.value)
    assert worse.minus(better).metrics["AR100"].value == -up.value
    assert again.minus(worse).metrics["AR100"] == (0, 0, 0)


@pytest.mark.slow
def test_a_thousand_resamples_of_five_thousand_images(write_json):
    """80 classes, 100 detections per image: COCO's size."""
    rng = np.random.default_rng(0)
    images, count, total = 5000, 500_000, 36_000
    boxes = np.concatenate([rng.uniform(0, 400, (total, 2)), np.exp(rng.uniform(2, 6, (total, 2)))], axis=1)
    place, classes = rng.integers(1, images + 1, total), rng.integers(1, 81, total)
    truth = {
        "images": [{"id": i} for i in range(1, images + 1)],
        "categories": [{"id": k} for k in range(1, 81)],
        "annotations": [
            {"id": i + 1, "image_id": int(place[i]), "category_id": int(classes[i]), "bbox": boxes[i].tolist()}
            for i in range(total)
        ],
    }
    near = np.repeat(np.arange(total), 3)
    found = boxes[near] * rng.uniform(0.9, 1.1, (len(near), 4))
    rest = count - len(near)
    noise = np.concatenate([rng.uniform(0, 400, (rest, 2)), np.exp(rng.uniform(2, 6, (rest, 2)))], axis=1)
    detections = Detections(
        np.append(place[near], rng.integers(1, images + 1, rest)),
        np.append(classes[near], rng.integers(1, 81, rest)),
        np.concatenate([found, noise]),
        rng.random(count),
    )
    matches = match(GroundTruth(write_json("gt.json", truth)), detections)
    result = measured([matches])[0].intervals().metrics
    assert result["AP"].low < result["AP"].value < result["AP"].high

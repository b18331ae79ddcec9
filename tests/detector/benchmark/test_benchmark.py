import json
import subprocess
import sys
import time
from dataclasses import astuple
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
import torchvision

from detector.benchmark import (
    cpu_suite,
    cuda_suite,
    detectors_suite,
    model_suite,
    retrofit_suite,
    run,
    stub_driver,
    tables,
    timing,
    train_suite,
)
from detector.benchmark.cases import until_stopped
from detector.benchmark.device_times import (
    DeviceRow,
    DeviceTimes,
    count_syncs,
    device_section,
    device_times,
    replay_time,
)
from detector.benchmark.timing import Bench
from detector.benchmark.workloads import Scene
from detector.config.defaults import default
from detector.config.schema import BenchmarkConfig
from detector.exceptions import ConfigError
from detector.export.parity import compare
from detector.measure import PeakMemory
from detector.models.faster_rcnn import build_model

ROOT = Path(__file__).resolve().parents[3]


def test_the_floor_by_hand():
    maps = {"0": torch.zeros(1, 2, 800 // 32, 1216 // 32)}
    # From 4 to 15.5 on the map: 14 samples a bin row 0.82 apart, the first at 4.41 and the last at 15.09, so that
    # rows 4..16 are touched, and columns alike.
    boxes = [torch.tensor([[128.0, 128, 128 + 12 * 32 - 16, 128 + 12 * 32 - 16]])]
    touched, output = 13 * 13, 49
    expected = (touched + output) * 2 * 4 / 1e9 * 1e3
    scene = Scene((800, 1216), 1)
    assert scene.floor(maps, boxes, 1e9) == pytest.approx(expected)
    backward = (output + 25 * 38) * 2 * 4 / 1e9 * 1e3
    assert scene.floor(maps, boxes, 1e9, forward=False, backward=True) == pytest.approx(backward)
    assert scene.floor(maps, boxes, 1e9, backward=True) == pytest.approx(expected + backward)


def test_proposals_are_boxes_in_the_image():
    boxes = torch.cat(Scene().proposals(500))
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (boxes[:, 2:] <= torch.tensor([1216.0, 800.0]) + 1e-3).all()


def test_boxes_of_a_training_batch_crowd_on_few_objects():
    """Three quarters of each image's boxes are near one of six, which is none of them: so many overlap much."""
    scene = Scene((800, 1088), 2)
    for boxes, spread in zip(scene.crowded(400), scene.proposals(400), strict=True):
        assert boxes.shape == (200, 4)
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([1088.0, 800, 1088, 800])).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        neighbours = lambda b: (torchvision.ops.box_iou(b, b) > 0.5).sum(1).float().mean()
        assert neighbours(boxes) > 5 * neighbours(spread)
        assert torch.equal(boxes[150:], spread[150:])


# ------------------------------------------------------------------------------------------ the workloads of a GPU
def test_the_workloads_of_a_gpu_run():
    """All of them on the CPU, which takes their calls as well."""
    bench = Bench(torch.device("cpu"), 1, True, 1e9)
    measured = cuda_suite.table(bench, progress_bar=False)
    (section,) = measured.sections
    assert all(row["ours"]["events"] > 0 and row["ours"]["host"] > 0 for row in section.records)
    peers = {row["peer_name"] for row in section.records if row["peer"] is not None}
    assert peers == {"torchvision", "torchvision, autocast", cuda_suite.DETERMINISTIC}
    assert not torch.are_deterministic_algorithms_enabled()
    names = [(row["workload"], row["peer_name"]) for row in section.records]
    assert len(set(names)) == len(names) == 18
    for words in (
        ("backward 2 x 50", "float32"),
        ("backward 2 x 50", "bfloat16"),
        ("forward", "PrRoIPool"),
        ("backward", "RoIPool"),
    ):
        assert any(all(word in name for word in words) for name, _ in names)
    for row in section.records:
        if row["peer"] is not None:
            assert row["ratio"] == pytest.approx(row["peer"]["events"] / row["ours"]["events"])


def test_a_row_of_a_gpu_shows_each_time_in_its_column():
    ours, peer = DeviceTimes(4.0, 5.0, kernels=2.0, replay=3.0), DeviceTimes(12.0, 7.0, kernels=6.0)
    section = device_section([DeviceRow("a", 1.0, ours, peer, "b"), DeviceRow("c", None, DeviceTimes(8.0, 9.0))])
    assert section.rows == [
        ["a", "1", "2", "3", "4", "5", "6", "12", "7", "3x", "b"],
        ["c", "", "", "", "8", "9", "", "", "", "", ""],
    ]
    assert all(len(row) == len(section.columns) for row in section.rows)


def test_what_was_measured_before_ctrl_c_is_kept(capsys):
    def stop():
        raise KeyboardInterrupt

    found, note = until_stopped([lambda: 1, lambda: 2, stop, lambda: 3], "suite", False, "row {}".format)
    assert found == [1, 2]
    assert "2 of 4" in note
    assert capsys.readouterr().out == "row 1\nrow 2\n"
    assert until_stopped([lambda: 1], "suite", False) == ([1], "")
    with pytest.raises(KeyboardInterrupt):
        until_stopped([stop], "suite", False)


def test_a_training_step_with_both_poolings(tmp_path):
    (section,) = quick("step", tmp_path)["sections"]
    assert [(row["precision"], row["roi"]) for row in section["records"]] == [
        (precision, roi) for precision in ("bfloat16", "float32") for roi in ("align", "torchvision_align")
    ]
    for row in section["records"]:
        assert row["images_per_s"] == pytest.approx(2000 / row["step_ms"])
        assert row["syncs"] is None


@pytest.mark.gpu
def test_times_of_a_call_on_a_gpu():
    """A multiplication of 4096 x 4096 matrices: each time is there, and no kernel is longer than the call."""
    a = torch.randn(4096, 4096, device="cuda")
    bench = Bench(torch.device("cuda"), 5, True, 1e12)
    with torch.cuda.stream(torch.cuda.Stream()):
        ours, peer = device_times(bench, lambda: a @ a, lambda: (a @ a).sum().item())
    assert 0 < ours.kernels < 1.5 * ours.events
    assert ours.replay == pytest.approx(ours.events, rel=0.5)
    assert 0 < ours.host < ours.events
    assert peer.host > 0.8 * ours.kernels  # it waits
    assert count_syncs(lambda: a @ a) == 0
    assert count_syncs(lambda: a.sum().item()) == 1
    replay, why = replay_time(lambda: a.sum().item(), 3)
    assert replay is None
    assert why


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_suite_of_one_is_refused(call_script):
    code, out, err = call_script("benchmark", "device=cuda")
    assert code == 2
    assert "device=cuda" in err + out
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_script_measures_and_writes(tmp_path, device):
    command = [sys.executable, "scripts/benchmark.py", "suite=roi_ops", f"device={device}", "quick=true",
               f"output_dir={tmp_path}"]  # fmt: skip
    (tmp_path / f"roi_ops_{device}.png").touch()  # the curves of a whole measurement, which quick=true has not
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".md"]
    records = json.loads((tmp_path / f"roi_ops_{device}.json").read_text())["sections"][0]["records"]
    ours = [row["ours"] if device == "cpu" else row["ours"]["events"] for row in records]
    assert all(time > 0 for time in ours)
    assert all((row["ratio"] is None) == (row["peer"] is None) for row in records)
    assert records[0]["workload"] in (tmp_path / f"roi_ops_{device}.md").read_text()


# -------------------------------------------------------------------------------------- the other suites
def quick(suite, tmp_path, **keys):
    config = default(BenchmarkConfig, suite=suite, quick=True, output_dir=str(tmp_path), progress_bar=False, **keys)
    measured, files = run(config)
    assert [file.name for file in files[:2]] == [f"{suite}_cpu.md", f"{suite}_cpu.json"]
    text, report = files[0].read_text(), json.loads(files[1].read_text())
    assert f"suite={suite}" in text
    for section in measured.sections:
        assert "| " + " | ".join(section.columns) + " |" in text
        assert all("| " + " | ".join(row) + " |" in text for row in section.rows)
    assert len(tables(measured)) == len(measured.sections)
    return report


def test_the_detector(tmp_path):
    report = quick("model", tmp_path)
    settings, stages = (section["records"] for section in report["sections"])
    assert [row["roi"] for row in settings] == ["align", "torchvision_align"]
    for row in settings:
        assert 0 < row["p50_ms"] <= row["p95_ms"]
        assert row["images_per_s"] == pytest.approx(1e3 * row["batch"] / row["p50_ms"])
    assert [row["stage"] for row in stages] == list(model_suite.STAGES)
    assert sum(row["share"] for row in stages) == pytest.approx(1)
    assert all(row["ms"] > 0 for row in stages)


def test_every_setting_changes_one_thing():
    for device in ("cpu", "cuda"):
        first, *others = model_suite.settings(device, False, "align")
        for other in others:
            assert sum(a != b for a, b in zip(astuple(first), astuple(other), strict=True)) == 1


def test_stages_are_told_apart():
    """A slow backbone is the backbone's, and nothing else becomes slower."""
    source = model_suite.Source("", 64, 64)
    model = source.build(model_suite.Setting(), torch.device("cpu"))
    images = [torch.rand(3, 64, 64)]
    before = model_suite.stage_times(model, images, 1, torch.device("cpu"))
    model.backbone.body.register_forward_pre_hook(lambda *_: time.sleep(0.5))
    after = model_suite.stage_times(model, images, 1, torch.device("cpu"))
    assert after["backbone"] > 500
    assert sum(after.values()) - after["backbone"] < sum(before.values()) + 400


class Event:
    """An event of a stream that counts: its time is how many fills the stream has seen."""

    filled: ClassVar[list] = []

    def record(self):
        self.seen = len(self.filled)

    def elapsed_time(self, end):
        return end.seen - self.seen


def test_caches_are_flushed_three_times_before_each_timed_call(monkeypatch):
    """Three flushes are the head start that the CPU needs; none of them is between the events."""
    Event.filled.clear()
    seen = []
    buffer = SimpleNamespace(zero_=lambda: Event.filled.append(1))
    monkeypatch.setattr(timing.torch, "empty", lambda *args, **kwargs: buffer)
    monkeypatch.setattr(timing.torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(timing, "event_pair", lambda: (Event(), Event()))
    calls = [lambda: seen.append(len(Event.filled)), lambda: buffer.zero_()]
    assert timing.between_events(calls, 2) == [0, 1]
    # Three warm-up calls of each come first, and the second call fills the buffer once itself.
    assert seen == [0, 0, 0, 3 + 3, 3 + 3 + 4 + 3]
    assert len(Event.filled) == 3 + 4 * 3 + 2


def test_the_overhead_begins_with_an_idle_device(monkeypatch):
    asked = []
    monkeypatch.setattr(cpu_suite, "host_times", lambda calls, repeats, device: asked.append(device) or [1.0, 2.0])
    device = torch.device("cpu", 0)
    row = cpu_suite.overhead(Bench(device, 3, True, 1e9))
    assert asked == [device]
    assert row.ratio == 2.0


@pytest.mark.slow
def test_host_time_with_a_stub_of_the_driver():
    """The whole call takes longer than the backend in it, forward and backward longer than forward."""
    if (reason := stub_driver.why_not()) is not None:
        pytest.skip(reason)
    forward, both = stub_driver.rows()
    assert 0 < forward.peer < forward.ours < both.ours
    assert forward.peer < both.peer < both.ours


@pytest.mark.skipif(sys.platform != "linux", reason="read from Linux's account of the process")
def test_peak_memory():
    with PeakMemory(torch.device("cpu")) as peak:
        block = torch.ones(50_000_000)
        del block
    if peak.megabytes is None:
        pytest.skip("this machine does not let a process reset its peak")
    assert 190 < peak.megabytes < 260


def test_the_data(tmp_path):
    report = quick("data", tmp_path)
    stages, loader = (section["records"] for section in report["sections"])
    assert stages[0]["stage"] == "read and decode"
    assert all(0 < row["p50_ms"] <= row["p95_ms"] for row in stages)
    assert [row["workers"] for row in loader] == [0, 1]
    assert all(row["images_per_s"] > 0 for row in loader)
    with pytest.raises(ConfigError, match="both annotations"):
        quick("data", tmp_path, annotations="x.json")


@pytest.mark.slow
def test_detectors_side_by_side(tmp_path):
    pytest.importorskip("onnxruntime")
    (section,) = quick("detectors", tmp_path)["sections"]
    rows = {row["detector"]: row for row in section["records"]}
    assert [*detectors_suite.OURS, detectors_suite.PEER] == list(rows)[:-1]
    for row in rows.values():
        assert all(row["ms"].values())
    ours, peer = (rows[name]["millions"] for name in ("model=mobilenet_v3_large_320_fpn", detectors_suite.PEER))
    assert ours == peer


@pytest.mark.slow
def test_retrofit(tmp_path):
    (section,) = quick("retrofit", tmp_path)["sections"]
    assert [row["workload"] for row in section["records"]] == [name for name in retrofit_suite.MODELS for _ in "ab"]
    assert all(row["ours"] > 0 and row["peer"] > 0 for row in section["records"])


@pytest.mark.slow
@pytest.mark.parametrize("name", list(retrofit_suite.MODELS))
def test_what_retrofit_compares_is_equal(name):
    original, replaced = retrofit_suite.pair(name, 96, 128, "cpu")
    images, targets = retrofit_suite.batch(2, 96, 128, "cpu")
    for model in (original, replaced):
        model.roi_heads.score_thresh, model.roi_heads.detections_per_img = 0.0, 20
    found, expected = (retrofit_suite.infer(model, images) for model in (replaced, original))
    # Random weights give equal scores, whose order and whose choice at the end of a full list are open.
    parity = compare(expected, found, 0.0, 20)
    assert parity.detections == 40
    assert parity.unmatched == 0
    assert parity.box < 1e-2
    assert parity.score < 1e-4
    losses, peers = (retrofit_suite.step(model, images, targets) for model in (replaced, original))
    for key, value in peers.items():
        assert torch.allclose(losses[key], value, rtol=1e-4, atol=1e-5), key


@pytest.mark.slow
def test_training_suite_compares_equal_models(tmp_path):
    """Our loop and the plain one run, on models with the same layers."""
    bench = Bench(torch.device("cpu"), 1, True, 1e9)
    row = train_suite.measure_step("c5", True, bench)
    assert row.workload == "model=c5, channels_last"
    assert row.ours > 0
    assert row.peer > 0
    config = train_suite.configured("fpn", False, 64, str(tmp_path), bench)
    ours = build_model(config.model, config.roi, 4)
    peer = train_suite.plain_model(config, 4)
    assert [p.shape for p in ours.parameters()] == [p.shape for p in peer.parameters()]

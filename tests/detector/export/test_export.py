import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms, nms

from detector.config.defaults import default, parse_partial
from detector.config.schema import Config, ExportConfig, RoiConfig, to_dict
from detector.exceptions import ConfigError, DataError, ExportError
from detector.export import export_model
from detector.export.export_model import export
from detector.export.nms import suppress
from detector.export.onnx_export import check_operator
from detector.export.parity import Parity, compare
from detector.export.static import StaticDetector
from detector.models.checkpoint import load_trained_model
from detector.training.module import DetectionModule

ROOT = Path(__file__).resolve().parents[3]


def tiny(roi=None, **model):
    """An untrained detector of three classes; ``model`` are keys of the group."""
    config = parse_partial(
        {
            "model": {
                "norm": "frozen",
                "fpn_channels": 8,
                "min_size": [64],
                "max_size": 96,
                "head": {"width": 16, "detections_per_image": 12, "score_thresh": 0.2},
                "rpn": {"post_nms_top_n_test": 60, "pre_nms_top_n_test": 100},
                **model,
            },
            "roi": roi or {},
        },
        Config,
    )
    torch.manual_seed(0)
    module = DetectionModule(config, ["a", "b", "c"], [1, 2, 3]).eval()
    with torch.no_grad():  # boxes and scores that differ, as those of a trained one do
        module.model.roi_heads.box_predictor.bbox_pred.weight.mul_(40)
        module.model.roi_heads.box_predictor.cls_score.weight.mul_(20)
        module.model.rpn.head.bbox_pred.weight.mul_(20)
        module.model.rpn.head.cls_logits.weight.mul_(50)
    return module


LAYOUTS = {
    "fpn": {},
    "fpn_lite": {"fpn_norm": "group", "fpn_strides": [8, 16, 32, 64], "anchors": {"sizes": [[16], [32], [64], [128]]}},
    "c5": {"name": "c5", "anchors": {"sizes": [[16, 32, 64]]}},
}


@pytest.fixture
def checkpoint(tmp_path, request):
    module = tiny(**LAYOUTS[getattr(request, "param", "fpn")])
    facts = {"config": to_dict(module.config), "class_names": ["cat", "dog", "yak"], "category_ids": [3, 7, 9]}
    torch.save({"state_dict": module.state_dict(), "global_step": 1, "hyper_parameters": facts}, tmp_path / "x.ckpt")
    return tmp_path / "x.ckpt"


# ----------------------------------------------------------------------------------------- suppression
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from([0.0, 0.3, 0.5, 0.9]), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_suppression_is_that_of_torchvision(seed, count, thresh, classes):
    """Whole-number boxes, so that equal overlaps and boxes without area come up."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 12, (count, 2, 2), generator=generator).float()
    boxes = torch.cat([corners.amin(1), corners.amax(1)], 1)
    scores = torch.rand(count, generator=generator).sort(descending=True).values
    labels = torch.randint(0, classes, (count,), generator=generator)
    everything = torch.ones(1, count, dtype=torch.bool)
    kept = suppress(boxes[None], None, everything, thresh)[0]
    assert kept.nonzero().flatten().tolist() == nms(boxes, scores, thresh).tolist()
    by_class = suppress(boxes[None], labels[None], everything, thresh)[0]
    assert by_class.nonzero().flatten().tolist() == batched_nms(boxes, scores, labels, thresh).tolist()


def test_a_chain_of_suppressions_is_followed_to_its_end():
    """Each box overlaps only the next one too much: every second one goes, which takes as many rounds as boxes."""
    left = torch.arange(200.0) * 6
    boxes = torch.stack([left, left * 0, left + 10, left * 0 + 10], 1)
    valid = torch.ones(1, 200, dtype=torch.bool)
    assert suppress(boxes[None], None, valid, 0.2)[0].tolist() == [i % 2 == 0 for i in range(200)]
    valid[0, 0] = False  # a box that is not there suppresses nothing
    assert suppress(boxes[None], None, valid, 0.2)[0].tolist() == [i % 2 == 1 for i in range(200)]


# --------------------------------------------------------------------------------------- the fixed form
@pytest.mark.parametrize("size", [(64, 64), (50, 90), (200, 120)])
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_fixed_form_finds_what_the_model_finds(name, size):
    module = tiny(**LAYOUTS[name])
    fixed = StaticDetector(module.model, size)
    torch.manual_seed(1)
    for _ in range(2):
        image = torch.rand(3, *size)
        with torch.no_grad():
            expected, (boxes, scores, labels, count) = module([image])[0], fixed(image)
        assert count == len(expected["scores"]) > 3
        assert boxes.shape == (12, 4)
        assert torch.allclose(boxes[:count], expected["boxes"], atol=1e-4)
        assert torch.allclose(scores[:count], expected["scores"], atol=1e-6)
        assert labels[:count].tolist() == expected["labels"].tolist()
        assert not boxes[count:].any()
        assert not scores[count:].any()
        assert not labels[count:].any()


def test_without_a_detection_everything_is_zero():
    module = tiny(head={"width": 16, "score_thresh": 1.0, "detections_per_image": 7})
    boxes, scores, _, count = StaticDetector(module.model, (64, 64))(torch.rand(3, 64, 64))
    assert count == 0
    assert boxes.shape == (7, 4)
    assert not boxes.any()
    assert not scores.any()


# --------------------------------------------------------------------------------------------- poolers
@pytest.mark.parametrize(
    ("roi", "says"),
    [
        (default(RoiConfig, kind="prroi"), "roi.kind=prroi"),
        (default(RoiConfig, kind="tent"), "roi.kind=tent"),  # docs/adding_an_operator.md
        (default(RoiConfig, mode="max", sampling_ratio=0), "sampling_ratio=0.* adaptive"),
    ],
)
def test_what_onnx_cannot_express_says_what_to_choose(roi, says):
    with pytest.raises(ConfigError, match=says) as caught:
        check_operator(roi)
    assert "format=torch_export" in str(caught.value)
    assert "roi=align" in str(caught.value)


# ---------------------------------------------------------------------------------------------- parity
def found(*rows):
    """Rows of (box, score, label)."""
    return {
        "boxes": torch.tensor([r[0] for r in rows], dtype=torch.float32).reshape(-1, 4),
        "scores": torch.tensor([r[1] for r in rows]),
        "labels": torch.tensor([r[2] for r in rows]),
    }


def test_parity_by_hand():
    a, b = ([0.0, 0, 10, 10], 0.9, 1), ([20.0, 0, 30, 10], 0.5, 2)
    same = compare([found(a, b)], [found(b, a)], 0.05, 100)
    assert (same.holds, same.images, same.detections, same.box, same.score) == (True, 1, 2, 0, 0)
    moved = compare([found(a)], [found(([0.0, 0, 10, 10.5], 0.9 + 2e-5, 1))], 0.05, 100)
    assert moved.box == pytest.approx(0.5)
    assert moved.score == pytest.approx(2e-5, rel=0.01)
    assert not moved.holds
    assert "NOT equal" in str(moved)
    assert compare([found(a, b)], [found(a)], 0.05, 100).unmatched == 1
    assert compare([found(a)], [found((a[0], 0.9, 2))], 0.05, 100).unmatched == 2


def test_parity_pairs_by_overlap_and_score_not_by_rank():
    """Two boxes of one label that overlap by 0.8 / 1.2, once the better one first and once the other, as rounding makes
    it of scores that are nearly equal; slivers, whose overlap says nothing; a box at another place (9 / 11)."""
    a, b = ([0.0, 0, 10, 10], 0.9, 1), ([2.0, 0, 12, 10], 0.9 + 1e-6, 1)
    swapped = compare([found(b, a)], [found(a, b)], 0.05, 100)
    assert (swapped.close, swapped.box, swapped.score) == (True, 0, 0)
    sliver = compare([found(([5.0, 0, 5.01, 9], 0.5, 1))], [found(([5.0005, 0, 5.01, 9], 0.5, 1))], 0.05, 100)
    assert sliver.close
    assert compare([found(a)], [found(([1.0, 0, 11, 10], 0.9, 1))], 0.05, 100).unmatched == 2
    assert compare([found(a)], [found((a[0], 0.88, 1))], 0.05, 100).unmatched == 2
    assert compare([found()], [found(a)], 0.05, 100).unmatched == 1


def test_parity_allows_for_what_float32_costs():
    apart = Parity(images=1, detections=1, box=0.003, score=1e-6)
    assert not apart.holds
    apart.rounding = Parity(box=0.001)
    assert apart.holds
    assert not apart.close
    assert "equal up to rounding" in str(apart)
    assert "float32 alone costs 0.001 px, 0)" in str(apart)
    apart.rounding = Parity(box=0.0009)
    assert not apart.holds
    apart.rounding = Parity(box=0.001)
    apart.unmatched = 2
    assert not apart.holds
    apart.rounding = Parity(box=0.001, unmatched=1)  # its own float32 loses a detection too
    assert apart.holds
    assert "and 1 of them" in str(apart)


def test_parity_at_the_cuts():
    a, last = ([0.0, 0, 10, 10], 0.9, 1), ([20.0, 0, 30, 10], 0.050004, 2)
    assert compare([found(a, last)], [found(a)], 0.05, 100).holds  # at the score threshold
    assert not compare([found(a, last)], [found(a)], 0.04, 100).holds
    other = ([50.0, 0, 60, 10], 0.050004, 2)
    assert compare([found(a, last)], [found(a, other)], 0.01, 2).holds  # at the end of a full list
    assert not compare([found(a, last)], [found(a, other)], 0.01, 3).holds
    far = ([20.0, 0, 30, 10], 0.0504, 2)
    assert not compare([found(a, far)], [found(a)], 0.05, 100).holds
    assert compare([found(a, far)], [found(a)], 0.05, 100, slack=5e-4).holds


# ---------------------------------------------------------------------------------------------- files
def settings_for(checkpoint, tmp_path, **changes):
    ending = ".pt2" if changes.get("format") == "torch_export" else ".onnx"
    return default(
        ExportConfig,
        **{"checkpoint": str(checkpoint), "output": str(tmp_path / f"out{ending}"), "parity_images": 2, **changes},
    )


# fpn_lite has group norm, in which ONNX Runtime is up to 2e-4 from float64 for these images, and PyTorch 1e-5. Without
# a norm, and with batch norm, the two agree to 1e-5.
@pytest.mark.parametrize(("checkpoint", "dynamic", "tolerance"),
                         [("fpn", True, 1e-5), ("fpn", False, 1e-5), ("fpn_lite", True, 5e-4)],
                         indirect=["checkpoint"])  # fmt: skip
def test_onnx(checkpoint, tmp_path, dynamic, tolerance):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    made = export(settings_for(checkpoint, tmp_path, dynamic=dynamic))
    files, parity = made.files, made.parity
    assert [file.name for file in files] == ["out.onnx", "out.onnx.json"]
    assert parity["out.onnx"].close
    assert parity["out.onnx"].detections > 4
    session = onnxruntime.InferenceSession(str(files[0]), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ([3, "height", "width"] if dynamic else [3, 64, 64])
    model = load_trained_model(checkpoint)
    generator = torch.Generator().manual_seed(0)
    for shape in [(1, 3000), (3000, 1), (70, 33)] if dynamic else []:
        image = torch.rand(3, *shape, generator=generator)
        found = session.run(["boxes", "scores", "labels"], {"image": image.numpy()})
        with torch.no_grad():
            expected = model([image])[0]
        assert sorted(found[1].tolist()) == pytest.approx(sorted(expected["scores"].tolist()), abs=tolerance)
        assert len(found[0]) == len(expected["boxes"]) > 0
    content = json.loads(files[1].read_text())
    assert content["class_names"] == {"1": "cat", "2": "dog", "3": "yak"}
    assert content["category_ids"] == {"1": 3, "2": 7, "3": 9}
    assert content["parity"]["out.onnx"]["equal"] is True
    with pytest.raises(ConfigError, match="overwrite=true"):
        export(settings_for(checkpoint, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys", [*LAYOUTS.values(), {"fpn_strides": [8, 16], "anchors": {"sizes": [[16], [32]]}}],
    ids=[*LAYOUTS, "fpn of two maps"],
)  # fmt: skip
def test_onnx_on_photographs(keys, tmp_path, shared_dir):
    """Twenty photographs, pretrained features under heads of random weights: within the tolerances or
    within what float32 costs such a model (docs/export.md has trained ones)."""
    pytest.importorskip("onnxruntime")
    weights, images = shared_dir / "weights" / "mobilenet_v2_features.pth", shared_dir / "data" / "bccd" / "images"
    if not weights.is_file() or not images.is_dir():
        pytest.skip(f"needs {weights} and {images}")
    module = tiny(
        weights=str(weights),
        min_size=[160],
        max_size=240,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        fpn_channels=32,
        head={"width": 64, "score_thresh": 0.2},
        **keys,
    )
    facts = {"config": to_dict(module.config), "class_names": module.class_names, "category_ids": [1, 2, 3]}
    torch.save({"state_dict": module.state_dict(), "hyper_parameters": facts}, tmp_path / "x.ckpt")
    parity = export(settings_for(tmp_path / "x.ckpt", tmp_path, images=str(images), parity_images=20)).parity
    assert parity["out.onnx"].holds, parity["out.onnx"]
    assert parity["out.onnx"].images == 20
    assert parity["out.onnx"].detections > 100


@pytest.mark.slow
def test_torch_export_is_loaded_by_a_process_that_knows_the_operators_only(checkpoint, tmp_path, data_set):
    made = export(
        settings_for(checkpoint, tmp_path, format="torch_export", image_size=[48, 80], images=str(data_set / "images"))
    )
    assert made.parity["out.pt2"].close
    code = (
        "import sys, torch, roi_ops; p = torch.export.load(sys.argv[1]).module(); "
        "b, s, l, n = p(torch.rand(3, 48, 80)); assert 'detector' not in sys.modules; print(tuple(b.shape))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(made.files[0])], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:2] == ["(12,", "4)"]


@pytest.mark.slow
def test_a_full_disk(checkpoint, tmp_path):
    """In a process of its own, which PyTorch's writer would end: no file may be longer than 50 kB."""
    arguments = [f"checkpoint={checkpoint}", "format=torch_export", "image_size=[48,80]", f"output={tmp_path}/out.pt2"]
    done = subprocess.run(
        [sys.executable, "-m", "detector", "export", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )
    assert (done.returncode, done.stderr) == (2, f"error: {tmp_path}/out.pt2: File too large\n")
    assert list(tmp_path.glob("*out.pt2*")) == []


def test_a_difference_is_an_error(checkpoint, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    honest = export_model.export_onnx

    def shifted(*args):
        run = honest(*args)
        return lambda image: {k: v + 1 if k == "boxes" else v for k, v in run(image).items()}

    monkeypatch.setattr(export_model, "export_onnx", shifted)
    with pytest.raises(ExportError, match="does not find what the model finds"):
        export(settings_for(checkpoint, tmp_path))


def test_a_damaged_image_is_named(checkpoint, tmp_path, data_set):
    file = data_set / "images" / "10.png"
    file.write_bytes(file.read_bytes()[:900])
    with pytest.raises(DataError, match=r"images=.*10\.png.*replace or remove the file"):
        export(settings_for(checkpoint, tmp_path, images=str(data_set / "images")))


def test_mistakes(checkpoint, tmp_path, monkeypatch):
    cases = [
        ({"checkpoint": ""}, ConfigError, "give checkpoint="),
        ({"output": "x.bin"}, ConfigError, r"end in \.onnx"),
        ({"compile": True}, ConfigError, "only format=torch_export"),
        ({"image_size": [64]}, ConfigError, "image_size="),
    ]
    for keys, error, says in cases:
        with pytest.raises(error, match=says):
            export(
                settings_for(checkpoint, tmp_path)
                if not keys
                else default(
                    ExportConfig, **{"checkpoint": str(checkpoint), "output": str(tmp_path / "x.onnx"), **keys}
                )
            )
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExportError, match=r"multiscale-rcnn\[export\]"):
        export(settings_for(checkpoint, tmp_path))


# ------------------------------------------------------------------------------ operators of the user's
def checkpoint_with(name, checkpoint):
    """The tiny detector's checkpoint with a pooler of the tests."""
    content = torch.load(checkpoint, weights_only=True)
    facts = content["hyper_parameters"]
    facts["config"]["roi"]["kind"] = {"_target_": f"user_parts.{name}"}
    prefix = "model.roi_heads.box_roi_pool.module."
    content["state_dict"] |= {f"{prefix}gain": torch.ones(1), f"{prefix}drawn": torch.ones(1)}
    torch.save(content, checkpoint)
    return checkpoint


@pytest.mark.parametrize("format", ["onnx", pytest.param("torch_export", marks=pytest.mark.slow)])
def test_an_operator_of_the_users_is_written_if_the_exporter_can(checkpoint, tmp_path, format):
    path = checkpoint_with("Pooler", checkpoint)
    written = export(settings_for(path, tmp_path, format=format, trust="user_parts"))
    (found,) = written.parity.values()
    assert found.close


@pytest.mark.slow
def test_an_operator_of_the_users_that_cannot_be_written_is_named(checkpoint, tmp_path):
    path = checkpoint_with("Unexportable", checkpoint)
    with pytest.raises(ExportError, match=r"format=torch_export: .*roi\.kind=user_parts\.Unexportable") as caught:
        export(settings_for(path, tmp_path, format="torch_export", trust="user_parts"))
    assert caught.value.__cause__ is not None

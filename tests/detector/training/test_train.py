"""Training runs of seconds: what they leave behind, repeatability, and how they fail."""

import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from small import SHORT, SMALL, configure

from detector.config.defaults import default
from detector.config.schema import Config, parse, to_dict
from detector.evaluation.detections import Detections
from detector.evaluation.metrics import METRIC_NAMES
from detector.evaluation.scoring import evaluate
from detector.exceptions import ConfigError, DataError, WeightsError
from detector.models.checkpoint import load_trained_model
from detector.training.resume import differences
from detector.training.train import train
from detector.training.trainer import check_hardware

FILES = {
    "config.yaml",
    "metrics.json",
    "metrics.csv",
    "curves.png",
    "predictions.png",
    "predictions.json",
    "checkpoints",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of four steps, its configuration and its result."""
    root = tmp_path_factory.mktemp("finished")
    config = configure(
        default(Config, run_dir=str(root / "run")),
        SMALL
        | SHORT
        | {
            "data.root": str(root / "data"),
            "data.shapes.val_images": 4,
            "roi.kind": "torchvision_align",
            "optim.lr": 0.002,
            "optim.warmup_steps": 2,
            "trainer.eval_every": 2,
            "logger.sheet_images": 2,
            "logger.tensorboard": True,
        },
    )
    return config, train(config)


def test_folder(finished):
    config, result = finished
    folder = Path(config.run_dir)
    assert {p.name for p in folder.iterdir()} == FILES | {"tensorboard"}
    assert {p.name for p in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert parse(OmegaConf.load(folder / "config.yaml"), Config) == config
    assert any(p.name.startswith("events.out") for p in (folder / "tensorboard").iterdir())
    assert result.folder == folder.absolute()
    assert result.steps == 4
    assert result.best_step in (2, 4)


def test_numbers_are_those_of_the_predictions(finished):
    config, result = finished
    folder = Path(config.run_dir)
    written = json.loads((folder / "metrics.json").read_text())
    assert list(written)[:12] == list(METRIC_NAMES)
    assert {name: written[name] for name in METRIC_NAMES} == result.result.metrics
    annotations = next(Path(config.data.root).glob("*/val.json"))
    again = evaluate(annotations, Detections.from_json(folder / "predictions.json"))
    assert again.metrics == result.result.metrics


def test_checkpoint_is_plain_and_gives_the_same_detections(finished):
    config, result = finished
    content = torch.load(result.checkpoint, weights_only=True)
    assert content["hyper_parameters"] == {
        "config": to_dict(config),
        "class_names": ["circle", "rectangle", "triangle", "star", "ring", "cross"],
        "category_ids": [1, 2, 3, 4, 5, 6],
        "pretrained": False,
    }
    module = load_trained_model(result.checkpoint)
    assert not module.training
    from detector.data.coco import CocoDataset

    annotations = next(Path(config.data.root).glob("*/val.json"))
    dataset = CocoDataset(annotations, annotations.parent / "images")
    images, targets = zip(*(dataset[i] for i in range(len(dataset))), strict=True)
    with torch.no_grad():
        outputs = module(list(images))
    found = Detections.from_model(outputs, [int(t["image_id"]) for t in targets], module.category_ids)
    written = Detections.from_json(result.folder / "predictions.json")
    assert found.image_id.tolist() == written.image_id.tolist()
    assert found.score == pytest.approx(written.score, abs=1e-6)
    assert found.boxes_xywh == pytest.approx(written.boxes_xywh, abs=1e-4)


def test_second_run_into_the_folder_is_refused(finished):
    config, result = finished
    before = {p: p.stat().st_mtime_ns for p in result.folder.rglob("*")}
    with pytest.raises(ConfigError, match=r"there is a run in it already.*resume=auto"):
        train(config)
    assert {p: p.stat().st_mtime_ns for p in result.folder.rglob("*")} == before


def test_same_seed_same_bits(tiny, tmp_path):
    for name in ("a", "b"):
        train(tiny(run_dir=str(tmp_path / name), seed=3))
    a, b = (torch.load(tmp_path / n / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for n in "ab")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert (tmp_path / "a/predictions.json").read_bytes() == (tmp_path / "b/predictions.json").read_bytes()


@pytest.mark.slow
def test_loader_processes_change_nothing(tiny, tmp_path):
    for workers in (0, 2):
        train(tiny(run_dir=str(tmp_path / str(workers)), data__workers=workers, augment__photometric=1.0))
    a, b = (torch.load(tmp_path / n / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for n in "02")
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_another_seed_gives_other_weights(tiny, tmp_path):
    states = []
    for seed in (0, 1):
        result = train(tiny(run_dir=str(tmp_path / str(seed)), seed=seed, trainer__max_steps=1))
        states.append(torch.load(result.last_checkpoint, weights_only=True)["state_dict"])
    key = "model.backbone.body.0.0.weight"
    assert not torch.equal(states[0][key], states[1][key])


@pytest.mark.parametrize("precision", ["bf16-mixed"])
def test_reduced_precision(tiny, precision):
    result = train(tiny(trainer__precision=precision, trainer__max_steps=2))
    assert result.steps == 2


def test_settings_of_pytorch_are_put_back_and_anchors_that_reach_nothing_are_said(tiny, capsys):
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    wide = [[500.0], [600.0], [700.0], [800.0], [900.0]]  # on images of 64 pixels
    train(tiny(trainer__threads=1 if threads > 1 else 2, trainer__max_steps=1, model__anchors__sizes=wide))
    out = " ".join(capsys.readouterr().out.split())
    assert f"on {'1 CPU thread' if threads > 1 else '2 CPU threads'}," in out
    assert "note 0% of the training boxes have an anchor of IoU 0.5" in out
    assert torch.get_num_threads() == threads
    assert torch.are_deterministic_algorithms_enabled() == deterministic


def test_without_ground_truth_the_newest_weights_are_the_best(tiny, tmp_path, monkeypatch):
    """An evaluation without a box has no AP: n/a, not an error."""
    config = tiny(trainer__eval_every=2)
    train(config)  # draws the data set
    source = next(Path(config.data.root).glob("shapes-*"))
    content = json.loads((source / "val.json").read_text())
    content["annotations"] = []
    (tmp_path / "val.json").write_text(json.dumps(content))
    (tmp_path / "train.json").write_text((source / "train.json").read_text())
    result = train(
        tiny(
            run_dir=str(tmp_path / "empty"),
            trainer__eval_every=2,
            data__name="coco",
            data__root=str(tmp_path),
            data__train_images=str(source / "images"),
            data__val_images=str(source / "images"),
        )
    )
    assert result.result.metrics["AP"] is None
    assert result.best_step == 4
    assert json.loads((result.folder / "metrics.json").read_text())["AP"] is None


def test_early_stopping(tiny):
    """A learning rate of 0 never improves: the first evaluation is the best, and the second after it ends the run."""
    result = train(
        tiny(
            optim__lr=0.0, model__norm="group", trainer__max_steps=20, trainer__eval_every=2, trainer__early_stopping=2
        )
    )
    assert result.steps == 6
    assert result.best_step == 2


def test_first_images_only(tiny):
    result = train(tiny(trainer__limit_eval_images=2, trainer__max_steps=1))
    assert result.result.images == 2


def test_checkpoints_between_evaluations(tiny, monkeypatch):
    saved = []
    from detector.training.callbacks.checkpoints import Checkpoints

    original = Checkpoints.save_last

    def note(self, trainer):
        if self.saved_step != trainer.global_step:
            saved.append(trainer.global_step)
        original(self, trainer)

    monkeypatch.setattr(Checkpoints, "save_last", note)
    train(tiny(trainer__max_steps=7, trainer__eval_every=4, trainer__checkpoint_every=3))
    assert saved == [3, 4, 6, 7]


def test_data_errors_come_before_the_folder(tiny, tmp_path):
    config = tiny(data__name="coco", data__root=str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="nowhere"):
        train(config)
    assert not Path(config.run_dir).exists()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model__fpn_strides": [8, 16]}, r"model=fpn has 2 feature maps \(strides 8, 16\)"),
        ({"model__name": "c4"}, r"model=c4 has 1 feature map \(strides 16\)"),
        ({"roi__kind": "pool", "roi__aligned": True}, r"roi\.aligned=true"),
    ],
)
def test_keys_that_do_not_go_together_come_before_the_data(tiny, tmp_path, keys, message):
    with pytest.raises(ConfigError, match=message):
        train(tiny(data__root=str(tmp_path / "other"), **keys))
    assert not (tmp_path / "other").exists()


def test_weights_errors_come_before_the_folder_and_the_data(tiny, tmp_path):
    config = tiny(model__weights="nowhere.pth", data__root=str(tmp_path / "drawn"))
    with pytest.raises(WeightsError, match=r"nowhere\.pth"):
        train(config)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"trainer__accelerator": "cpu", "trainer__precision": "16-mixed"}, r"16-mixed: float16 needs a GPU"),
        ({"trainer__accelerator": "cpu", "model__norm": "sync", "trainer__devices": 2}, r"model\.norm=sync"),
    ],
)
def test_what_a_cpu_cannot_do(tiny, keys, message):
    with pytest.raises(ConfigError, match=message):
        check_hardware(tiny(**keys))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(tiny):
    with pytest.raises(ConfigError, match="finds no GPU here"):
        check_hardware(tiny(trainer__accelerator="gpu"))
    assert check_hardware(tiny(trainer__accelerator="auto")) == "cpu"


@pytest.mark.gpu
def test_more_gpus_than_there_are(tiny):
    with pytest.raises(ConfigError, match=r"trainer\.devices=1000"):
        check_hardware(tiny(trainer__accelerator="gpu", trainer__devices=1000))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["32", "16-mixed", "bf16-mixed"])
def test_gpu(tiny, precision):
    result = train(tiny(trainer__accelerator="gpu", trainer__precision=precision, roi__kind="align"))
    assert result.steps == 4


def test_differences_are_those_that_matter(tiny):
    old, new = tiny(), tiny(trainer__max_steps=99, logger__csv=False, data__workers=5)
    assert differences(to_dict(old), to_dict(new)) == []
    head = {"model__head__width": 32, "model__weights": "x"}
    new = tiny(seed=4, **head, data__batch_size=1, data__shapes__seed=1, trainer__limit_eval_images=2)
    assert [d[0] for d in differences(to_dict(old), to_dict(new))] == [
        "data.batch_size",
        "data.shapes.seed",
        "model.head.width",
        "model.weights",
        "seed",
        "trainer.limit_eval_images",
    ]

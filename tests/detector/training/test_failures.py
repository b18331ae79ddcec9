"""What goes wrong in the middle of a training has a defined end and a message."""

import os
import resource
import signal
from pathlib import Path

import pytest
import torch
from torch.utils.data import get_worker_info

from detector.data.coco import CocoDataset
from detector.data.datamodule import DetectionDataModule
from detector.data.loader import TRIES
from detector.data.shapes import ensure_shapes
from detector.exceptions import DataError, TrainingError
from detector.training import write_results
from detector.training.module import DetectionModule
from detector.training.train import train
from detector.words import counted


@pytest.fixture
def own(tiny, tmp_path):
    """A function: keys -> a tiny configuration whose images may be damaged."""

    def make(**keys):
        config = tiny(**keys)
        config.data.root = str(tmp_path / "data")
        return config

    return make


def files(config):
    """The training images of ``config``, drawn if they are not there yet."""
    config.data.shapes.empty_fraction = 0.0
    folder = ensure_shapes(Path(config.data.root), config.data.shapes)
    dataset = CocoDataset(folder / "train.json", folder / "images")
    return [dataset.file_path(i) for i in range(len(dataset))]


def damage(path, how):
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_unreadable_image_is_replaced_and_reported(own, workers, how):
    config = own(data__on_error="skip", data__workers=workers)
    paths = files(config)
    data = DetectionDataModule(config.data, config.augment, 0)
    data.setup()
    damage(paths[4], how)
    loader = data.train_dataloader()
    batches = [*loader, *loader]  # two epochs of 5 batches of 2
    assert [len(images) for images, _ in batches] == [2] * 10
    seen = [int(t["image_id"]) for _, targets in batches for t in targets]
    ids = data.train_dataset.image_ids
    assert ids[4] not in seen
    assert seen.count(ids[5]) == 4  # its own turn and that of the one before it, in two epochs
    (told,) = data.skipped
    assert str(paths[4]) in told


@pytest.mark.parametrize(("how", "words"), [("missing", "no image file"), ("damaged", "cannot read the image")])
def test_unreadable_image_stops_by_default_and_says_how_to_skip_it(own, how, words):
    config = own()
    paths = files(config)
    data = DetectionDataModule(config.data, config.augment, 0)
    data.setup()
    damage(paths[4], how)
    with pytest.raises(DataError, match=f"{words} {paths[4]}.*data.on_error=skip"):
        list(data.train_dataloader())


def test_many_unreadable_images_in_a_row_stop(own):
    config = own(data__on_error="skip")
    paths = files(config)
    data = DetectionDataModule(config.data, config.augment, 0)
    data.setup()
    for path in paths[:9]:
        damage(path, "missing")
    assert TRIES < 9
    with pytest.raises(DataError, match="is the folder still there") as caught:
        list(data.train_dataloader())
    assert "on_error" not in str(caught.value)


def test_run_that_skips_says_so(own, monkeypatch, capsys):
    config = own(data__on_error="skip", trainer__max_steps=5)
    paths = files(config)
    original = DetectionModule.training_step

    def step(self, batch, batch_idx):
        if batch_idx == 0:  # all images are known to exist, then one goes
            for path in paths[3:5]:
                path.unlink(missing_ok=True)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(DetectionModule, "training_step", step)
    result = train(config)
    assert result.steps == 5
    lines = (result.folder / "skipped.txt").read_text().splitlines()
    assert 1 <= len(lines) <= 2
    out = " ".join(capsys.readouterr().out.split())
    assert f"skipped: {lines[0]}" in out
    assert f"{counted(len(lines), 'image')} could not be read" in out


def test_run_that_stops_can_go_on(own, monkeypatch):
    """The image comes back, and the run goes on from its checkpoint."""
    config = own(trainer__max_steps=5, trainer__checkpoint_every=1)
    paths = files(config)
    data = DetectionDataModule(config.data, config.augment, config.seed)
    data.setup()
    ((_, last), _) = data.train_dataloader().stream.batch(4)
    content = paths[last].read_bytes()
    with monkeypatch.context() as patch:
        raising(patch, lambda: paths[last].unlink(missing_ok=True), step=3)
        with pytest.raises(DataError, match=f"no image file {paths[last]}"):
            train(config)
    paths[last].write_bytes(content)
    config.resume = "auto"
    assert train(config).steps == 5


def raising(monkeypatch, action, step=2):
    """Let ``action`` be called in place of optimiser step ``step``."""
    original = DetectionModule.training_step

    def broken(self, batch, batch_idx):
        if self.trainer.global_step == step - 1:
            action()
        return original(self, batch, batch_idx)

    monkeypatch.setattr(DetectionModule, "training_step", broken)


def test_gpu_out_of_memory(tiny, monkeypatch):
    def full():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nmore")

    raising(monkeypatch, full)
    with pytest.raises(TrainingError, match=r"GPU is out of memory \(CUDA .* 20.00 MiB\.\)\. A smaller"):
        train(tiny())


def test_machine_out_of_memory(tiny, monkeypatch):
    raising(monkeypatch, lambda: torch.empty(1 << 60, dtype=torch.uint8))
    with pytest.raises(TrainingError, match=r"machine is out of memory.*resume=auto"):
        train(tiny())


def test_full_disk(tiny, monkeypatch):
    """No file may be longer than 20 kB: the second checkpoint cannot be written, the first one stays whole."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    config = tiny(trainer__checkpoint_every=1)
    raising(monkeypatch, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1])))
    try:
        with pytest.raises(TrainingError, match=r"cannot write.*Make room"):
            train(config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    monkeypatch.undo()
    folder = Path(config.run_dir) / "checkpoints"
    assert [p.name for p in folder.iterdir()] == ["last.ckpt"]
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 1
    config.resume = "auto"
    assert train(config).steps == 4


@pytest.mark.slow
def test_killed_loader_process(tiny, monkeypatch):
    original = CocoDataset.__getitem__

    def killed(self, index):
        if get_worker_info() is not None and index == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, index)

    monkeypatch.setattr(CocoDataset, "__getitem__", killed)
    with pytest.raises(TrainingError, match=r"a loader process ended: .*fewer data\.workers"):
        train(tiny(data__workers=1, trainer__max_steps=10))


def test_a_picture_that_cannot_be_drawn_is_no_failure(tiny, monkeypatch, capsys):
    def broken(*args):
        raise ValueError("no font")

    monkeypatch.setattr(write_results, "plot_curves", broken)
    config = tiny(logger__sheet_images=1)
    left = Path(config.run_dir) / "curves.png"  # as by a run that has ended before and goes on
    monkeypatch.setattr(write_results, "facts", lambda *of: left.touch() or {"seed": 0})
    result = train(config)
    out = capsys.readouterr().out
    assert "curves.png was not made: ValueError: no font" in out
    assert not (result.folder / "curves.png").exists()
    assert (result.folder / "predictions.png").is_file()
    assert "of the training time was spent waiting for data" in out


def test_detect_anomaly_names_the_operation(tiny, monkeypatch):
    original = DetectionModule.training_step

    def broken(self, batch, batch_idx):
        losses = original(self, batch, batch_idx)
        zero = self.model.roi_heads.box_predictor.bbox_pred.bias.sum() * 0
        return {**losses, "loss": losses["loss"] + torch.sqrt(zero) * 0}  # 0 and a gradient of infinity times 0

    monkeypatch.setattr(DetectionModule, "training_step", broken)
    with (
        pytest.warns(UserWarning, match="Error detected in"),
        pytest.raises(TrainingError, match=r"'MulBackward0|'SqrtBackward0"),
    ):
        train(tiny(trainer__detect_anomaly=True))

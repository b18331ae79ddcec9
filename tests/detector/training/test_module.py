"""The module and the data module in a Trainer that is not ours: what is logged, scored, resumed and loaded."""

import json
import math
import warnings

import pytest
import pytorch_lightning as pl
import torch
from comparing import assert_same
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

import detector
from detector.data.datamodule import DetectionDataModule
from detector.evaluation.metrics import METRIC_NAMES
from detector.evaluation.scoring import evaluate
from detector.exceptions import ConfigError, DataError
from detector.models.checkpoint import load_trained_model
from detector.models.faster_rcnn import detect_with_losses
from detector.models.seeding import seed_of
from detector.training.callbacks import Checkpoints, Monitor, PredictionSheet, Schedule
from detector.training.length import total_steps
from detector.training.module import DetectionModule
from detector.training.optimiser import images_of_a_step
from detector.training.train import train

SMALL = {
    "model": {"min_size": [64], "fpn_channels": 8, "norm": "group", "head": {"width": 8, "score_thresh": 0.0}},
    "optim": {"warmup_steps": 0, "lr": 1e-3},
}
LOSSES = ["loss", "loss_box_reg", "loss_classifier", "loss_objectness", "loss_rpn_box_reg"]
pytestmark = pytest.mark.filterwarnings("ignore")


def make(**groups):
    torch.manual_seed(0)
    return DetectionModule({**SMALL, **groups}, ["cat", "dog"], [3, 7])


def collate(items):
    return tuple(zip(*items, strict=True))


def loader_of(count, ids=True, size=2):
    """Images of noise, each with a box, and a crowd in the first."""
    torch.manual_seed(1)
    items = []
    for n in range(count):
        target = {"boxes": torch.tensor([[5.0, 5.0, 35.0, 40.0]]), "labels": torch.tensor([1 + n % 2])}
        if n == 0:
            target["boxes"] = torch.cat([target["boxes"], torch.tensor([[0.0, 0.0, 60.0, 60.0]])])
            target = {**target, "labels": torch.tensor([1, 1]), "iscrowd": torch.tensor([0, 1])}
        items.append((torch.rand(3, 64, 64), {**target, "image_id": 10 + n} if ids else target))
    return DataLoader(items, batch_size=size, collate_fn=collate)


def trainer_of(**options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return pl.Trainer(accelerator="cpu", **{"logger": False, "log_every_n_steps": 1, **quiet, **options})


def test_numbers_are_logged_and_scored_against_the_targets(tmp_path):
    """COCO's numbers are those of a file with the same boxes, the losses those of the batches by hand."""
    module, loader, trainer = make(), loader_of(3), trainer_of()
    trainer.validate(module, loader, verbose=False)
    logged = {name.removeprefix("val/"): float(value) for name, value in trainer.callback_metrics.items()}
    assert sorted(logged) == sorted([*METRIC_NAMES, *LOSSES])
    annotations = []
    for _, target in loader.dataset:
        for n, (x1, y1, x2, y2) in enumerate(target["boxes"].tolist()):
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append({"id": len(annotations) + 1, "image_id": target["image_id"], "bbox": box, "iscrowd": n,
                                "category_id": [3, 7][target["labels"][n] - 1]})  # fmt: skip
    content = {"images": [{"id": 10 + n} for n in range(3)], "annotations": annotations,
               "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]}  # fmt: skip
    (tmp_path / "val.json").write_text(json.dumps(content))
    expected = evaluate(tmp_path / "val.json", module.detections).metrics
    assert module.result.metrics == expected
    for name, value in expected.items():
        assert math.isnan(logged[name]) if value is None else logged[name] == pytest.approx(value)
    module.annotations = tmp_path / "val.json"
    trainer.validate(module, loader, verbose=False)
    assert module.result.metrics == expected

    module.eval()
    by_hand = dict.fromkeys(LOSSES[1:], 0.0)
    with torch.no_grad():
        for images, targets in loader:
            plain = [{key: value[:1] for key, value in t.items() if key != "image_id"} for t in targets]  # no crowd
            ids = [t["image_id"] for t in targets]
            losses = detect_with_losses(module.model, list(images), plain, seed_of(*ids))[1]
            for name in by_hand:
                by_hand[name] += losses[name].item() * len(images) / 3
    assert {name: logged[name] for name in by_hand} == pytest.approx(by_hand)
    assert logged["loss"] == pytest.approx(sum(by_hand.values()))


def test_an_image_that_comes_twice_counts_once():
    module, loader = make(), loader_of(4)
    trainer = trainer_of()
    trainer.validate(module, loader, verbose=False)
    once, losses = module.result, module.eval_losses
    twice = DataLoader([*loader.dataset, loader.dataset[0], loader.dataset[1]], 2, collate_fn=collate)
    trainer.validate(module, twice, verbose=False)
    assert (module.result, module.eval_losses) == (once, losses)
    assert once.images == 4


def test_images_without_an_id():
    module = make()
    trainer_of().validate(module, loader_of(3, ids=False), verbose=False)
    assert module.detections.images.tolist() == [0, 1, 2]
    mixed = DataLoader([*loader_of(3, ids=False).dataset, *loader_of(1).dataset], 2, collate_fn=collate)
    with pytest.raises(DataError, match="1 targets have an image_id and 3 have none"):
        trainer_of().validate(module, mixed, verbose=False)
    module.annotations = "val.json"
    with pytest.raises(DataError, match="no image_id"):
        trainer_of().validate(module, loader_of(3, ids=False), verbose=False)


def test_the_losses_can_be_left_out():
    module, trainer = make(trainer={"val_loss": False}), trainer_of()
    trainer.validate(module, loader_of(2), verbose=False)
    assert module.eval_losses == {}
    assert "val/loss" not in trainer.callback_metrics
    assert "val/AP" in trainer.callback_metrics


def test_training_test_and_prediction():
    """Three epochs of two steps; crowds are not trained on; the random numbers of others are left alone."""
    module, loader = make(), loader_of(4)
    seen = []
    original = module.model.forward
    module.model.forward = lambda images, targets=None: seen.append(targets) or original(images, targets)
    trainer = trainer_of(max_epochs=3)
    states = []
    module.on_train_batch_start = module.on_after_backward = lambda *args: states.append(torch.get_rng_state())
    trainer.fit(module, loader)
    assert len(states) == 12
    assert all(torch.equal(a, b) for a, b in zip(states[::2], states[1::2], strict=True))
    assert trainer.global_step == 6
    assert [len(target["boxes"]) for target in seen[0]] == [1, 1]
    assert {f"train/{name}" for name in LOSSES} <= set(trainer.callback_metrics)
    trainer.test(module, loader, verbose=False)
    assert {f"test/{name}" for name in [*METRIC_NAMES, *LOSSES]} <= set(trainer.callback_metrics)
    images_only = DataLoader([image for image, _ in loader.dataset], 2, collate_fn=list)
    with_targets, without = (trainer.predict(module, given) for given in (loader, images_only))
    assert [len(batch) for batch in with_targets] == [2, 2]
    for a, b in zip(with_targets[1], without[1], strict=True):
        assert all(torch.equal(a[key], b[key]) for key in ("boxes", "labels", "scores"))


def test_rates_follow_the_trainer():
    """The cosine ends at the sixth step of three epochs; a scale is for the loader's images; `lr` wins over both."""
    optim = {**SMALL["optim"], "schedule": "cosine", "final_factor": 0.25, "base_batch": 8, "name": "sgd"}
    module, rates = make(optim=optim), []
    module.on_train_batch_start = lambda *args: rates.append(module.optimizers().param_groups[0]["lr"])
    trainer = trainer_of(max_epochs=3, accumulate_grad_batches=2)
    trainer.fit(module, loader_of(8))
    peak = 1e-3 * 2 * 2 / 8
    assert rates[::2] == pytest.approx([peak * (0.25 + 0.375 * (1 + math.cos(math.pi * n / 5))) for n in range(6)])
    assert images_of_a_step(trainer) == 4
    module.lr = 0.125
    rates.clear()
    trainer_of(max_steps=1).fit(module, loader_of(2))
    assert rates == [0.125]


class Lengths(pl.Callback):
    """What the training is thought to be long before its data are loaded, after that, and in the end."""

    def setup(self, trainer, module, stage):
        self.found = [total_steps(trainer)]
        assert trainer.train_dataloader is None

    def on_train_start(self, trainer, module):
        self.found += [total_steps(trainer), trainer.estimated_stepping_batches]

    def on_train_end(self, trainer, module):
        self.found.append(trainer.global_step)


@pytest.mark.parametrize(("options", "steps"), [
    ({"max_epochs": 2, "accumulate_grad_batches": 2}, 4),
    ({"max_epochs": 2, "limit_train_batches": 0.5}, 2),
    ({"max_epochs": 3, "limit_train_batches": 2}, 6),
    ({"max_epochs": 3, "overfit_batches": 1}, 3),
    ({"max_epochs": 3, "max_steps": 4}, 4),
    ({"max_epochs": -1, "max_steps": 4}, 4),
])  # fmt: skip
def test_length_before_the_data_are_loaded(options, steps):
    """Three batches an epoch."""
    lengths = Lengths()
    trainer_of(callbacks=[lengths], limit_val_batches=0, **options).fit(make(), loader_of(6))
    assert lengths.found == [steps] * 4


def test_a_loader_without_a_length():
    """Its training has no last step, which Lightning gives as -1; a schedule that needs one says so."""

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(loader_of(4).dataset)

    loader, lengths = DataLoader(Stream(), 2, collate_fn=collate), Lengths()
    trainer_of(max_epochs=1, callbacks=[lengths]).fit(make(), loader)
    assert lengths.found == [math.inf, math.inf, -1, 2]
    with pytest.raises(ConfigError, match=r"optim\.schedule.*T_max"):
        trainer_of(max_epochs=1).fit(make(optim={"schedule": COSINE, "warmup_steps": 0}), loader)


@pytest.mark.parametrize(("images", "lr", "expected"), [(2, None, 0.5 * 2 / 16), (2, 0.125, 0.125)])
def test_the_rate_of_a_node_is_scaled_and_replaced(images, lr, expected):
    """SGD as a class: in proportion to the images, as the word; `lr` of the module wins."""
    node = {"_target_": "torch.optim.SGD", "lr": 0.5}
    module = make(optim={"name": node, "base_batch": 16, "warmup_steps": 0, "lr": 1e-9})
    module.lr, rates = lr, []
    module.on_train_batch_start = lambda *args: rates.append(module.optimizers().param_groups[0]["lr"])
    trainer_of(max_steps=1).fit(module, loader_of(images))
    assert rates == [pytest.approx(expected)]


def test_several_loaders():
    """Prediction takes them; validation, test and training want one."""
    module, several = make(), [loader_of(2), loader_of(2)]
    assert [len(batches) for batches in trainer_of().predict(module, several)] == [1, 1]
    for call, word in (
        (trainer_of().validate, "validation"),
        (trainer_of().test, "test"),
        (trainer_of().fit, "training"),
    ):
        with pytest.raises(ConfigError, match=f"^{word} with 2 loaders"):
            call(module, several)
    trainer_of().validate(module, several[:1], verbose=False)


def test_a_loader_that_does_not_say_how_many_images():
    with pytest.raises(ConfigError, match=r"optim\.base_batch"):
        trainer_of(max_steps=1).fit(make(optim={**SMALL["optim"], "base_batch": 8}), loader_of(2, size=None))


def test_a_warm_up_without_an_end_is_said():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer_of(max_steps=1).fit(make(optim={"warmup_steps": 5}), loader_of(2))
    assert any("optim.warmup_steps=5" in str(w.message) for w in caught)


@pytest.fixture
def data(write_coco, tmp_path):
    rows = [(n, n, (5, 5, 25, 20), {"category_id": 3 + 4 * (n % 2)}) for n in range(1, 6)]
    sizes = dict.fromkeys(range(1, 6), (64, 64))
    write_coco(rows, sizes)
    write_coco(rows[:3], dict.fromkeys(range(1, 4), (64, 64)), name="val.json")
    keys = {"name": "coco", "root": str(tmp_path), "workers": 0}
    return lambda **more: DetectionDataModule({**keys, **more})


@pytest.mark.parametrize("by_path", [False, True])
def test_classes_that_are_left_out_do_not_count(data, tmp_path, by_path):
    """Of the three validation images two show a dog: one box is scored, whoever says what is left out."""
    given = data(drop_categories=["dog"])
    config = {**SMALL, "data": {"drop_categories": ["dog"]}} if by_path else SMALL
    truth = tmp_path / "val.json" if by_path else given.val_annotations
    module = DetectionModule(config, given.class_names, given.category_ids, annotations=truth)
    trainer_of().validate(module, given, verbose=False)
    assert (module.result.images, module.result.boxes, len(module.result.per_class)) == (3, 1, 1)


def test_checkpoints_of_another_trainer(data, tmp_path):
    """A plain ModelCheckpoint, read by Lightning with arguments of its own, and by us."""
    kept = ModelCheckpoint(tmp_path / "kept", monitor="val/AP", mode="max", save_weights_only=True)
    module, given = make(), data()
    trainer_of(max_epochs=1, callbacks=[kept], enable_checkpointing=True).fit(module, given)
    image = given.val_dataset[0][0]
    again = DetectionModule.load_from_checkpoint(kept.best_model_path, weights_only=True, annotations="x.json")
    assert again.annotations == "x.json"
    assert (again.class_names, again.category_ids, again.hparams.pretrained) == (["cat", "dog"], [3, 7], False)
    with torch.no_grad():
        expected = module.eval()([image])[0]
        for found in (again.eval()([image])[0], load_trained_model(kept.best_model_path)([image])[0]):
            assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert len(detector.load(kept.best_model_path, "cpu")(image)[0]) == len(expected["boxes"]) > 0


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt"])
def test_checkpoints_of_a_run(tiny, name):
    outcome = train(tiny(trainer__max_steps=1, optim__ema=0.5, model__norm="group"))
    path = outcome.folder / "checkpoints" / name
    module = DetectionModule.load_from_checkpoint(path, "cpu")
    assert_same(module.state_dict(), load_trained_model(path).state_dict())


class Stop(pl.Callback):
    """Ends the training with an error when so many steps are done."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, *args):
        if trainer.global_step == self.step:
            raise KeyError


COSINE = {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR"}  # which needs the length to be made


@pytest.mark.parametrize(
    ("stop", "schedule"),
    [(3, "one_cycle"), (2, COSINE), *(pytest.param(n, "one_cycle", marks=pytest.mark.slow) for n in (2, 4))],
)
def test_another_trainer_resumes_where_it_stopped(data, tmp_path, stop, schedule):
    """Five images in batches of two are three steps an epoch; stopped within an epoch, at its end, and after that."""
    optim = {**SMALL["optim"], "schedule": schedule}

    def fit(folder, *more, resume=None):
        kept = Checkpoints(tmp_path / folder, Schedule(every=1))
        trainer = trainer_of(max_epochs=2, callbacks=[kept, *more], num_sanity_val_steps=0)
        trainer.fit(make(optim=optim), data(), ckpt_path=resume, weights_only=True)
        return torch.load(tmp_path / folder / "last.ckpt", weights_only=True)

    whole = fit("whole")
    with pytest.raises(KeyError):
        fit("part", Stop(stop))
    part = fit("part", resume=tmp_path / "part/last.ckpt")
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch", "DetectionDataModule"):
        assert_same(whole[key], part[key], key)
    assert whole["callbacks"] == part["callbacks"]


def test_checkpoints_need_a_number_that_is_logged(tmp_path):
    with pytest.raises(ConfigError, match=r"'val/MAP'\): no such number is logged; there are .*val/AP50"):
        trainer_of(max_epochs=1, callbacks=[Checkpoints(tmp_path, monitor="val/MAP")], num_sanity_val_steps=0).fit(
            make(), loader_of(2), loader_of(2)
        )


def test_sheets_and_speed(tmp_path):
    """A picture for each evaluation; speed in Lightning's own rows."""
    monitor = Monitor()
    logger = pl.loggers.CSVLogger(tmp_path, name="", version="")
    sheet = PredictionSheet(tmp_path / "sheet_{step}.png", images=3)
    trainer_of(max_epochs=2, callbacks=[monitor, sheet], logger=logger).fit(make(), loader_of(4), loader_of(4))
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["sheet_2.png", "sheet_4.png"]
    header, *rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert {"train/images_per_s", "train/data_wait", "train/loss", "val/AP"} <= set(header.split(","))
    assert len(rows) == 4 + 2
    assert monitor.images_per_s > 0

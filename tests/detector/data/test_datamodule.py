"""The data module: loaders that are reproducible, and messages that survive loader processes."""

import hashlib
import itertools
import math
import shutil
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import RunningStage
from pytorch_lightning.utilities.data import _update_dataloader
from torch.utils.data import DistributedSampler

from detector.config.defaults import default
from detector.config.schema import AugmentConfig, DataConfig, ShapesConfig
from detector.data.annotations import read_annotations
from detector.data.datamodule import DetectionDataModule
from detector.exceptions import ConfigError, DataError

SHAPES = default(ShapesConfig, train_images=10, val_images=5, image_size=48, min_object=8, max_object=20)
STRONG = default(AugmentConfig, vertical_flip=0.5, scale_jitter=[0.5, 1.5], iou_crop=0.5, photometric=1.0)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def shapes_module(root, workers=0, seed=0, limit_eval_images=0, **changes):
    module = DetectionDataModule(
        default(DataConfig, root=str(root), shapes=SHAPES, workers=workers, batch_size=4, eval_batch_size=2, **changes),
        STRONG,
        seed,
        limit_eval_images,
    )
    module.prepare_data()
    module.setup("fit")
    return module


def coco_module(root, **changes):
    module = DetectionDataModule(
        default(DataConfig, name="coco", root=str(root), batch_size=2, eval_batch_size=2, **{"workers": 0, **changes}),
        default(AugmentConfig),
        0,
    )
    module.prepare_data()
    module.setup()
    return module


def trainer_of(rank=0, world_size=1, max_steps=-1, max_epochs=1):
    """What the data module reads of a Trainer."""
    return SimpleNamespace(
        global_rank=rank, world_size=world_size, max_steps=max_steps, max_epochs=max_epochs, current_epoch=0,
        accumulate_grad_batches=1,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )  # fmt: skip


def equal(a, b):
    """Whether two batches are the same to the bit."""
    return (
        len(a[0]) == len(b[0])
        and all(map(torch.equal, a[0], b[0]))
        and all(
            x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x) for x, y in zip(a[1], b[1], strict=True)
        )
    )


def test_batches_by_their_number(drawn):
    """What training got as batch n can be had again, with the images of all processes."""
    module = shapes_module(drawn)
    for number, batch in enumerate(first_batches(module, 3)):
        assert equal(module.training_batch(number), batch)
        found = [module.train_dataset.image_ids[index] for index in module.training_indices(number)]
        assert found == [int(target["image_id"]) for target in batch[1]]
    ranks = [shapes_module(drawn) for _ in range(2)]
    for rank, module in enumerate(ranks):
        module.trainer = trainer_of(rank, 2)
    ids = [int(t["image_id"]) for module in ranks for t in module.training_batch(4)[1]]
    assert [ranks[0].train_dataset.image_ids[i] for i in ranks[0].training_indices(4)] == ids


def test_identity_is_that_of_the_files_when_they_were_read(drawn, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(next(drawn.glob("shapes-*")), root)
    changes = {"train_images": "images", "val_images": "images"}
    first = coco_module(root, **changes)
    digest = hashlib.sha256((root / "val.json").read_bytes()).hexdigest()
    assert first.state_dict()["val"] == {"annotations": str(root / "val.json"), "digest": digest[:16], "images": 5,
                                         "boxes": int(first.val_dataset.box_counts.sum())}  # fmt: skip
    before = first.state_dict()["train"]["digest"]
    (root / "train.json").write_text((root / "train.json").read_text() + " ")
    assert first.state_dict()["train"]["digest"] == before != coco_module(root, **changes).identity["train"]["digest"]


def first_batches(module, count=6):
    """Over as many epochs as it takes: three batches of four are an epoch of ten images."""
    epochs = itertools.repeat(module.train_dataloader())
    return list(itertools.islice(itertools.chain.from_iterable(epochs), count))


def test_batches_are_lists(drawn):
    module = shapes_module(drawn)
    images, targets = next(iter(module.train_dataloader()))
    assert [type(x) for x in (images, targets)] == [list, list]
    assert len(images) == len(targets) == 4
    assert images[0].shape[0] == 3
    assert targets[0]["boxes"].shape[1] == 4


def test_same_batches_with_and_without_loader_processes(drawn):
    """Bitwise, with every augmentation on, over a pass and a half."""
    plain = first_batches(shapes_module(drawn, workers=0), 4)
    for workers in (1, 2):
        assert all(map(equal, plain, first_batches(shapes_module(drawn, workers=workers), 4)))


def test_same_batches_whatever_was_drawn_before(drawn):
    torch.manual_seed(1)
    first = first_batches(shapes_module(drawn))
    torch.manual_seed(2)
    second = first_batches(shapes_module(drawn))
    assert all(map(equal, first, second))
    assert not any(map(equal, first, first_batches(shapes_module(drawn, seed=1))))


def test_loading_leaves_the_random_state_of_training_alone(drawn):
    module = shapes_module(drawn)
    torch.manual_seed(1)
    batches = iter(module.train_dataloader())
    next(batches)
    state = torch.get_rng_state()
    next(batches)
    assert torch.equal(torch.get_rng_state(), state)


def test_augmentation_does_not_depend_on_the_batch(drawn):
    by_key = {}
    for size in (2, 5):
        module = shapes_module(drawn)
        module.data.batch_size = size
        keys = [key for step in range(10 // size) for key in module.train_dataloader().batch_sampler.batch(step)]
        batches = first_batches(module, 10 // size)
        for key, image in zip(keys, [image for images, _ in batches for image in images], strict=True):
            by_key.setdefault(key, []).append(image)
    assert len(by_key) == 10
    assert all(torch.equal(*images) for images in by_key.values())


def test_passes_augment_differently(drawn):
    dataset = shapes_module(drawn).train_dataloader().dataset
    assert not torch.equal(dataset[0, 3].content[0], dataset[1, 3].content[0])


@pytest.mark.parametrize("workers", [0, 1])
def test_one_epoch_goes_on_where_the_last_one_ended(drawn, workers):
    module = shapes_module(drawn, workers=workers)
    loader = module.train_dataloader()
    assert len(loader) == 3  # of four of ten images, the last one filled from the next epoch
    epochs = [list(loader) for _ in range(2)]
    assert [len(epoch) for epoch in epochs] == [3, 3]
    assert all(map(equal, epochs[0] + epochs[1], (module.training_batch(n) for n in range(6))))
    loader.load_state_dict({"step": 4})  # in the middle of an epoch
    assert all(map(equal, list(loader), epochs[1][1:]))
    assert len(list(loader)) == 3


def test_a_trainer_that_counts_steps_has_one_epoch_of_them(drawn):
    """Whatever the epochs of the data: gradients are accumulated over their ends."""
    module = shapes_module(drawn)
    module.trainer = trainer_of(max_steps=5, max_epochs=-1)
    module.trainer.accumulate_grad_batches = 2
    assert len(module.train_dataloader()) == 10
    module.trainer = trainer_of(max_steps=5, max_epochs=2)
    assert len(module.train_dataloader()) == 3


def test_validation_is_every_image_once_unchanged_and_in_order(drawn):
    module = shapes_module(drawn)
    batches = list(module.val_dataloader())
    assert [len(images) for images, _ in batches] == [2, 2, 1]
    seen = [(image, target) for images, targets in batches for image, target in zip(images, targets, strict=True)]
    assert [int(target["image_id"]) for _, target in seen] == module.val_image_ids == [1, 2, 3, 4, 5]
    assert all(torch.equal(image, module.val_dataset[i][0]) for i, (image, _) in enumerate(seen))


def test_limit_eval_images(drawn):
    module = shapes_module(drawn, limit_eval_images=3)
    assert module.val_image_ids == [1, 2, 3]
    assert [int(t["image_id"]) for _, targets in module.val_dataloader() for t in targets] == [1, 2, 3]


def test_processes_share_the_images(drawn):
    def on(rank):
        module = shapes_module(drawn)
        module.trainer = trainer_of(rank, 2, max_steps=5, max_epochs=-1)
        ids = [
            [int(t["image_id"]) for _, targets in loader for t in targets]
            for loader in (module.train_dataloader(), module.val_dataloader())
        ]
        return ids[0], ids[1]

    (train_a, val_a), (train_b, val_b) = on(0), on(1)
    assert val_a + val_b == [1, 2, 3, 4, 5]
    assert len(train_a) == len(train_b) == 20
    assert sorted(train_a + train_b) == sorted(list(range(1, 11)) * 4)  # 5 steps of 2 x 4 images: 4 passes over 10


def test_a_process_without_images_of_its_own_gets_the_first_again(drawn):
    """Five images in batches of two are three parts; four processes share them."""
    seen = []
    for rank in range(4):
        module = shapes_module(drawn)
        module.trainer = trainer_of(rank, 4)
        seen += [[int(t["image_id"]) for t in targets] for _, targets in module.val_dataloader()]
    assert seen == [[1, 2], [3, 4], [5], [1]]


def test_lightning_does_not_share_the_images_out_a_second_time(drawn):
    """It says what to do instead; silently, each process would get a part of its part."""
    module = shapes_module(drawn)
    for loader in (module.train_dataloader(), module.val_dataloader()):
        with pytest.raises(TypeError, match="use_distributed_sampler=False"):
            _update_dataloader(loader, DistributedSampler(loader.dataset, 2, 0))


@pytest.mark.filterwarnings("ignore")
def test_loader_of_predictions_as_lightning_makes_it_anew(drawn):
    loader = shapes_module(drawn).predict_dataloader()
    again = _update_dataloader(loader, loader.sampler, RunningStage.PREDICTING)
    assert all(map(equal, list(loader), list(again)))
    assert len(list(again)) == 3


def test_setup_twice_reads_once(drawn):
    module = shapes_module(drawn)
    dataset = module.train_dataset
    module.setup("validate")
    assert module.train_dataset is dataset


def test_summary_names_classes_counts_and_the_category_map(write_coco):
    categories = [{"id": 9, "name": "zebra"}, {"id": 4, "name": "ant"}]
    file, _ = write_coco(
        [(1, 1, (0, 0, 5, 5), {"category_id": 9}), (2, 1, (0, 0, 5, 0), {"category_id": 4})], categories=categories
    )
    write_coco([(1, 2, (0, 0, 5, 5), {"category_id": 4})] * 1, categories=categories, name="val.json")
    lines = coco_module(file.parent, on_invalid="drop").summary().splitlines()
    assert lines[0] == f"train 2 images (1 without a box), 1 box, {file} (1 annotation dropped)"
    assert lines[1].startswith("val   2 images (1 without a box), 1 box, ")
    assert [line.split() for line in lines[3:]] == [["ant", "1", "4", "0", "1"], ["zebra", "2", "9", "1", "0"]]


@pytest.mark.parametrize(
    ("val_categories", "words"),
    [
        ([{"id": 3, "name": "cat"}], "id 7: 'dog' in train, none in val"),
        ([{"id": 3, "name": "cat"}, {"id": 7, "name": "fox"}], "id 7: 'dog' in train, 'fox' in val"),
        (
            [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}, {"id": 8, "name": "eel"}],
            "id 8: none in train, 'eel' in val",
        ),
    ],
)
def test_categories_that_differ(write_coco, val_categories, words):
    file, _ = write_coco([(1, 1, (0, 0, 5, 5))])
    write_coco([(1, 1, (0, 0, 5, 5))], categories=val_categories, name="val.json")
    with pytest.raises(DataError) as caught:
        coco_module(file.parent)
    assert words in str(caught.value)
    assert "train.json and " in str(caught.value)
    assert "cat" not in str(caught.value).splitlines()[1]  # what agrees is not listed


def test_categories_in_another_order_are_the_same(write_coco):
    file, _ = write_coco([(1, 1, (0, 0, 5, 5))])
    write_coco([], categories=[{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}], name="val.json")
    assert coco_module(file.parent).class_names == ["cat", "dog"]


@pytest.mark.parametrize(
    ("rows", "changes", "words"),
    [
        ([], {}, "train.json has no box to train on."),
        ([(1, 1, (0, 0, 5, 5), {"iscrowd": 1})], {}, r"has no box to train on \(1 crowd not trained on\)."),
        ([(1, 1, (0, 0, 0, 5))], {"on_invalid": "drop"}, r"has no box to train on \(1 annotation dropped\)."),
        ([], {"keep_empty": False}, "has no box to train on."),
    ],
)
def test_nothing_to_train_on(write_coco, rows, changes, words):
    file, _ = write_coco(rows)
    write_coco([(1, 1, (0, 0, 5, 5))], name="val.json")
    with pytest.raises(DataError, match=words):
        coco_module(file.parent, **changes)


def test_what_is_marked_is_not_trained_on_and_counted(write_coco):
    """``ignore`` as ``iscrowd``; neither is left out of what evaluation reads."""
    rows = [(1, 1, (0, 0, 5, 5)), (2, 1, (9, 0, 5, 5), {"ignore": 1}), (3, 1, (0, 9, 5, 5), {"ignore": "true"})]
    rows += [(4, 1, (9, 9, 5, 5), {"iscrowd": 1, "ignore": 1}), (5, 1, (20, 9, 5, 5), {"ignore": 0})]
    file, _ = write_coco(rows)
    write_coco(rows, name="val.json")
    module = coco_module(file.parent)
    train, val = module.summary().splitlines()[:2]
    assert "2 boxes" in train
    assert "(1 crowd not trained on, 2 annotations marked ignore not trained on)" in train
    assert "ignore" not in val
    assert module.train_dataset[0][1]["boxes"][:, 0].tolist() == [0, 20]
    assert module.train_dataset.box_counts.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("mark", "ignored"),
    [
        *[(v, False) for v in (0, 0.0, False, None, math.nan, "", "0", "no", "No ", "off", "null", "None", "false")],
        *[(v, True) for v in (1, 1.0, True, "1", "1.0", "yes", "on", "TRUE")],
    ],
)
def test_words_of_the_mark(write_coco, mark, ignored):
    file, _ = write_coco([(1, 1, (0, 0, 5, 5), {"ignore": mark})])
    assert read_annotations(file).ignore.tolist() == [ignored]


def test_classes_are_left_out_by_name(write_coco):
    """A background takes no label; a class with boxes takes them with it. A file need not have it."""
    categories = [{"id": 0, "name": "_background_"}, {"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    rows = [(1, 1, (0, 0, 5, 5), {"category_id": 7}), (2, 1, (9, 0, 5, 5)), (0, 2, (0, 0, 0, 0))]
    file, _ = write_coco(rows, categories=categories)
    write_coco([(1, 1, (0, 0, 5, 5))], categories=categories[:2], name="val.json")
    module = coco_module(file.parent, drop_categories=["_background_", "dog"], on_invalid="drop")
    assert (module.class_names, module.category_ids) == (["cat"], [3])
    assert module.train_dataset[0][1]["labels"].tolist() == [1]
    assert module.train_dataset[0][1]["boxes"].tolist() == [[9, 0, 14, 5]]
    train, val = module.summary().splitlines()[:2]
    assert "class _background_ with 0 annotations, class dog with 1 annotation left out" in train
    assert "class _background_ with 0 annotations left out" in val
    assert "dog" not in val
    with pytest.raises(ConfigError, match=r"data.drop_categories: .*has no class 'dgo'; did you mean 'dog'\?"):
        coco_module(file.parent, drop_categories=["dgo"], on_invalid="drop")


def test_images_without_a_file_are_counted(write_coco):
    file, folder = write_coco([(1, 1, (0, 0, 5, 5))])
    write_coco([], images={9: (10, 10)}, name="val.json")
    (folder / "9.png").rename(folder / "9.jpg")
    (folder / "9.bmp").touch()  # two files could be meant
    with pytest.raises(DataError, match=r"val.json has no image to evaluate on \(1 image without a file\)"):
        coco_module(file.parent, on_invalid="drop")
    (folder / "1.png").unlink()
    with pytest.raises(DataError, match=r"train.json has no box to train on \(1 image without a file\)"):
        coco_module(file.parent, on_invalid="drop")


def test_keep_empty_concerns_training_only(write_coco):
    file, _ = write_coco([(1, 1, (0, 0, 5, 5))])
    write_coco([(1, 1, (0, 0, 5, 5))], name="val.json")
    module = coco_module(file.parent, keep_empty=False)
    assert (len(module.train_dataset), len(module.val_dataset)) == (1, 2)


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_image_is_one_message_from_any_process(write_coco, workers):
    file, folder = write_coco([(1, 1, (0, 0, 5, 5))])
    shutil.copy(file, file.parent / "val.json")
    module = coco_module(file.parent, workers=workers)
    (folder / "1.png").write_bytes(b"broken")
    for loader in (module.train_dataloader(), module.val_dataloader()):
        with pytest.raises(DataError) as caught:
            list(itertools.islice(loader, 4))
        assert str(caught.value).startswith(f"cannot read the image {folder / '1.png'}")
        assert "Traceback" not in str(caught.value)


class Recorder(pl.LightningModule):
    """Notes the images of every step; its checkpoint can be resumed."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []
        self.validated = []

    def training_step(self, batch, _):
        self.seen.append([int(t["image_id"]) for t in batch[1]])
        return self.weight * batch[0][0].mean()

    def validation_step(self, batch, _):
        self.validated += [int(t["image_id"]) for t in batch[1]]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_state_of_the_loader_counts_batches_handed_out_not_those_in_preparation(drawn):
    module = shapes_module(drawn, workers=1)
    module.trainer = trainer_of(max_steps=6, max_epochs=-1)
    loader = module.train_dataloader()
    assert loader.state_dict() == {"step": 0}
    batches = iter(loader)
    seen = [next(batches) for _ in range(2)]
    assert loader.state_dict() == {"step": 2}
    other = module.train_dataloader()
    other.load_state_dict(loader.state_dict())
    assert other.state_dict() == {"step": 2}
    assert all(map(equal, seen + list(other), module.train_dataloader()))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_lightning_run_sees_what_an_uninterrupted_one_sees(drawn, tmp_path, workers, recwarn):
    def run(stop, checkpoint=None):
        module, data = Recorder(), shapes_module(drawn, workers=workers)
        trainer = pl.Trainer(
            accelerator="cpu",
            max_steps=stop,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            val_check_interval=3,
            num_sanity_val_steps=0,
        )
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
        return trainer, module, data

    trainer, whole, data = run(7)
    assert len(whole.seen) == 7
    assert whole.validated == [1, 2, 3, 4, 5] * 2  # after steps 3 and 6
    sampler = data.train_dataloader().batch_sampler
    assert whole.seen == [[data.train_dataset.image_ids[i] for _, i in sampler.batch(n)] for n in range(7)]
    assert len(whole.seen) > 2 * data.images_per_epoch / 4

    trainer, first, _ = run(4)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    trainer, second, _ = run(7, checkpoint=tmp_path / "last.ckpt")
    assert first.seen + second.seen == whole.seen
    assert trainer.global_step == 7
    assert torch.equal(second.weight, whole.weight)
    assert not [w for w in recwarn if "not resumable" in str(w.message)]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_trainer_that_counts_epochs_sees_other_batches_in_each(drawn, tmp_path, workers):
    """Resumed within an epoch, at its last step, and after its end."""

    def run(checkpoint=None, max_epochs=3, keep=False):
        module = Recorder()
        saved = pl.callbacks.ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
        trainer = pl.Trainer(accelerator="cpu", max_epochs=max_epochs, callbacks=[saved] if keep else [], logger=False,
                             enable_checkpointing=keep, enable_progress_bar=False, enable_model_summary=False,
                             use_distributed_sampler=False)  # fmt: skip
        trainer.fit(module, datamodule=shapes_module(drawn, workers=workers), ckpt_path=checkpoint,
                    weights_only=True if checkpoint else None)  # fmt: skip
        return trainer, module

    trainer, whole = run(keep=True)
    assert (trainer.global_step, trainer.current_epoch) == (9, 3)
    sampler = shapes_module(drawn).train_dataloader().batch_sampler
    assert whole.seen == [[i + 1 for _, i in sampler.batch(n)] for n in range(9)]
    trainer, _ = run(max_epochs=2)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    for name, steps in (("step=4", 4), ("step=6", 6), ("end", 6)):
        _, second = run(tmp_path / f"{name}.ckpt")
        assert second.seen == whole.seen[steps:]
        assert torch.equal(second.weight, whole.weight)

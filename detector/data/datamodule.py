"""The training and the validation data of a run, as a LightningDataModule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from detector.config.defaults import configuration
from detector.config.schema import AugmentConfig, Config, DataConfig
from detector.config.stored import from_file
from detector.data.coco import DetectionDataset, Transform
from detector.data.left_out import check_dropped, dropped_classes
from detector.data.loader import Batch, DetectionLoader, StepLoader, collate, content_of
from detector.data.orientation import first_told
from detector.data.own_transforms import OwnTransform
from detector.data.repeats import repeat_factors
from detector.data.samplers import EpochOrder, ShardedBatches, StepBatchSampler
from detector.data.splits import Split, find_split
from detector.data.transforms import Augment, AugmentedDataset
from detector.exceptions import DataError
from detector.files import problem_list
from detector.words import counted


class DetectionDataModule(pl.LightningDataModule):
    """Both splits of a data set and their loaders, for any module and any Trainer.

    Loaders yield ``(list of images, list of targets)`` as :class:`DetectionDataset` describes them. Training batches
    follow :class:`StepBatchSampler`: which images step n sees, and how they are augmented, depends on ``seed`` and n
    only. A Trainer that resumes goes on with the next batch. A Trainer with several processes needs
    ``use_distributed_sampler=False``: the data module shares the images out itself.

    Args:
        data: a folder with ``train.json``, ``val.json`` and ``images/``; or the ``data`` group, which says where files
            are and how they are loaded, or a dict of some of its keys; or the whole configuration of a run, or a dict
            of some of its keys, from which the other arguments are taken too unless they are given.
        augment: of the training images.
        seed: of order and augmentation of the training images.
        limit_eval_images: evaluate on the first so many validation images only; 0: all.
        transform: of the training images, in place of ``augment``; see :class:`OwnTransform`.
        trust: where ``data`` or ``augment`` are those of a file, the modules whose classes they may name, as in
            :func:`detector.load`. None: those of the checkpoint that they come from, else they are your own.

    Attributes:
        batch_size: images per training batch and process.
        skipped: what is wrong with each image that could not be read in training, in the order they came.
        identity: what tells the data of two runs apart, for both splits: the annotation file, the ``digest`` of its
            content, and numbers of images and boxes; there after :meth:`setup`.
        train_dataset: the training images without augmentation; there after :meth:`setup`.
        val_dataset: the validation images, those without a box included.
        val_split: their files.
    """

    def __init__(
        self,
        data: Config | DataConfig | Mapping[str, Any] | str | Path,
        augment: AugmentConfig | None = None,
        seed: int | None = None,
        limit_eval_images: int | None = None,
        transform: Transform | None = None,
        trust: str | None = None,
    ) -> None:
        super().__init__()
        config = data if isinstance(data, Config) else configuration(data)
        if trust is not None:
            config, augment = from_file((config, augment), trust)
        self.data = replace(config.data)  # the batch size may be changed here
        self.augment = OwnTransform(transform) if transform else Augment(augment or config.augment)
        self.seed = config.seed if seed is None else seed
        limit = config.trainer.limit_eval_images
        self.limit_eval_images = limit if limit_eval_images is None else limit_eval_images
        self.skipped: list[str] = []
        self.identity: dict[str, dict[str, Any]] = {}
        self.train_dataset: DetectionDataset
        self.val_dataset: DetectionDataset
        self.val_split: Split

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, trust: str = "", **kwargs: Any) -> Any:
        """Lightning's; classes that the checkpoint names are imported if ``trust`` allows them only."""
        # Given here, it wins over what the file may say.
        return super().load_from_checkpoint(checkpoint_path, *args, trust=trust, **kwargs)

    def prepare_data(self) -> None:
        """Draw the built-in data set, once per machine."""
        find_split(self.data, "train")

    def setup(self, stage: str | None = None) -> None:
        """Read and check both splits; later calls do nothing.

        Raises:
            DataError: a split cannot be used, the categories of the two differ, or there is nothing to train on.
            ConfigError: ``drop_categories`` names a class that there is not.
        """
        if hasattr(self, "train_dataset"):
            return
        train_split, self.val_split = (find_split(self.data, name) for name in ("train", "val"))
        train, val = train_split.dataset(), self.val_split.dataset()
        check_dropped(self.data.drop_categories, [train.table, val.table], "data.drop_categories")
        _check_same_categories(train, val)
        if self.data.exif == "auto":  # splits of one data set: one tells for the other if that does not tell itself
            own, other = train.evidence.exif, val.evidence.exif
            train.exif, val.exif = first_told(own, other), first_told(other, own)
        if self.data.overfit_images:
            self.val_split = replace(train_split, name="val")
            val = self.val_split.dataset()
            val.exif = train.exif
            for split in (train, val):
                split.keep(np.flatnonzero(split.box_counts)[: self.data.overfit_images])
        if not train.used.any():
            raise DataError(f"{train.annotations} has no box to train on{_left_out(train, training=True)}.")
        if not len(val):
            raise DataError(f"{val.annotations} has no image to evaluate on{_left_out(val)}.")
        self.train_dataset, self.val_dataset = train, val
        # Now, and not when a checkpoint is written: the files may have changed by then.
        self.identity = {
            split.name: {"annotations": str(split.annotations), "digest": split.digest(),
                         "images": len(images), "boxes": int(images.used.sum())}
            for split, images in ((train_split, train), (self.val_split, val))
        }  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: the data that it comes from."""
        return self.identity

    @property
    def batch_size(self) -> int:
        """Images per training batch and process; Lightning's ``Tuner.scale_batch_size`` sets it."""
        return self.data.batch_size

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        self.data.batch_size = size

    @property
    def class_names(self) -> list[str]:
        """Name of label i + 1 at position i; reads the data if :meth:`setup` has not."""
        self.setup()
        return self.train_dataset.class_names

    @property
    def category_ids(self) -> list[int]:
        """Category id of label i + 1 at position i; reads the data if :meth:`setup` has not."""
        self.setup()
        return self.train_dataset.category_ids

    @property
    def val_annotations(self) -> Split:
        """The file of the validation boxes, and what is left out of it; reads the data if :meth:`setup` has not."""
        self.setup()
        return self.val_split

    @property
    def exif(self) -> str:
        """``data.exif`` as it was decided; as it is if nothing tells, or if the splits tell different things."""
        return self.train_dataset.exif if self.train_dataset.exif == self.val_dataset.exif else self.data.exif

    @property
    def val_image_ids(self) -> list[int]:
        """Ids of the images that evaluation runs on, over all processes."""
        return self.val_dataset.image_ids[: self.limit_eval_images or None]

    @property
    def shared_images(self) -> int:
        """Number of validation images whose files are trained on too; 0 with ``overfit_images``, where all are."""
        if self.data.overfit_images:
            return 0
        train, val = (
            {(split.images and split.images.resolve(), name) for name in split.table.file_names.tolist()}
            for split in (self.train_dataset, self.val_dataset)
        )
        return len(train & val)

    @property
    def images_per_epoch(self) -> int:
        """Training images per epoch; one that is repeated counts as often as it occurs."""
        return self._order(world_size=1).length

    def train_dataloader(self) -> StepLoader:
        """The training batches of this process.

        An iteration has as many batches as an epoch of the data fills. With a Trainer that counts steps instead of
        epochs it has those of all steps: at the end of one of its epochs, Lightning does a step even if it has not
        accumulated the gradients of ``accumulate_grad_batches`` batches.
        """
        dataset = AugmentedDataset(self.train_dataset, self.augment, self.seed)
        on_skip = self._skip if self.data.on_error == "skip" else None
        return StepLoader(dataset, self._sampler(*self._ranks()), on_skip=on_skip, **self._loading())

    def training_indices(self, number: int) -> list[int]:
        """The images of training batch ``number`` (from 0) of all processes, as positions in ``train_dataset``."""
        order = self._order(self._ranks()[1])
        start = number * order.images_per_batch
        return [order.key(position)[1] for position in range(start, start + order.images_per_batch)]

    def training_batch(self, number: int) -> Batch:
        """Training batch ``number`` (from 0) of this process, on the CPU, as training gets it.

        Raises:
            DataError: an image cannot be read.
        """
        loader = self.train_dataloader()
        return content_of(collate([loader.dataset[key] for key in loader.stream.batch(number)]))

    def _order(self, world_size: int) -> EpochOrder:
        repeats = repeat_factors(self.train_dataset, self.data.repeat_threshold)
        images_per_batch = self.data.batch_size * world_size
        return EpochOrder(
            self.train_dataset.table.sizes, images_per_batch, self.seed, self.data.aspect_grouping, repeats
        )

    def _sampler(self, rank: int, world_size: int) -> StepBatchSampler:
        order, trainer = self._order(world_size), self.trainer
        if trainer is not None and trainer.max_epochs == -1 and trainer.max_steps > 0:
            return StepBatchSampler(order, rank, world_size, trainer.max_steps * trainer.accumulate_grad_batches)
        # Lightning restores the position of a loader within an epoch, but not between two.
        epoch = trainer.current_epoch if trainer is not None else 0
        return StepBatchSampler(order, rank, world_size, math.ceil(order.length / order.images_per_batch), epoch)

    def _skip(self, error: str) -> None:
        if error not in self.skipped:
            self.skipped.append(error)

    def val_dataloader(self) -> DetectionLoader:
        """The validation images of this process, in the order of the file; each image goes to one process.

        If there are fewer batches than processes, a process without images gets the first image, which it has to meet
        the others at the end of the loop; rank 0 has that image too. An image that cannot be read is an error here
        whatever ``data.on_error`` says, as scores of other images are not comparable.
        """
        batches = ShardedBatches(len(self.val_image_ids), self.data.eval_batch_size, *self._ranks())
        return DetectionLoader(self.val_dataset, batch_sampler=batches, **self._loading())

    def predict_dataloader(self) -> DetectionLoader:
        """The validation images."""
        return self.val_dataloader()

    def summary(self) -> str:
        """Images, boxes and classes of both splits, to be printed: a table of the classes with their category ids."""
        splits = {"train": self.train_dataset, "val": self.val_dataset}
        lines = []
        for name, split in splits.items():
            empty = int((split.box_counts == 0).sum())
            lines.append(
                f"{name:<6}{counted(len(split), 'image')} ({empty:,} without a box), "
                f"{counted(int(split.used.sum()), 'box', 'boxes')}, "
                f"{split.annotations}{_left_out(split, training=name == 'train')}"
            )
            undecided = len(split.evidence.undecided) if split.exif == "auto" else 0
            if undecided:
                lines.append(
                    f"      {counted(undecided, 'image')} of {name} turned by EXIF without a change of size, and "
                    "nothing tells how the boxes were drawn: read as viewers show them (data.exif)"
                )
        width = max(5, *(len(name) for name in self.class_names))
        lines.append(f"{'class':<{width}}  {'label':>5}  {'category id':>11}  {'train boxes':>11}  {'val boxes':>9}")
        rows = zip(self.class_names, self.category_ids, *(s.class_counts for s in splits.values()), strict=True)
        lines += [
            f"{name:<{width}}  {label:>5}  {category:>11}  {train:>11}  {val:>9}"
            for label, (name, category, train, val) in enumerate(rows, 1)
        ]
        return "\n".join(lines)

    def _ranks(self) -> tuple[int, int]:
        """Rank of this process and world size."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loading(self) -> dict[str, Any]:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return {
            "num_workers": self.data.workers,
            "persistent_workers": self.data.workers > 0,
            "pin_memory": on_gpu and torch.cuda.is_available(),
        }


def _check_same_categories(train: DetectionDataset, val: DetectionDataset) -> None:
    of_train, of_val = (dict(zip(d.category_ids, d.class_names, strict=True)) for d in (train, val))
    if of_train == of_val:
        return
    differing = sorted(c for c in of_train.keys() | of_val.keys() if of_train.get(c) != of_val.get(c))
    raise problem_list(
        f"the categories of {train.annotations} and {val.annotations} differ:",
        [f"id {c}: {_named(of_train, c)} in train, {_named(of_val, c)} in val" for c in differing],
        "Give both files the same list of categories; a category may have no annotation.",
    )


def _named(names: dict[int, str], category: int) -> str:
    return repr(names[category]) if category in names else "none"


def _left_out(dataset: DetectionDataset, training: bool = False) -> str:
    """What of the data set is left out, and with ``training`` what is not trained on, in brackets; "" for nothing."""
    dropped, clipped = ([p for p in dataset.problems if p.action == a] for a in ("dropped", "clipped"))
    images = sum(p.remedy == "image" for p in dropped)
    ignored = int(dataset.table.ignore.sum())
    crowds = int(dataset.table.iscrowd.sum()) - ignored
    counts = (images, len(dropped) - images, len(clipped), crowds * training, ignored * training)
    words = (
        ("image without a file", "images without a file"),
        ("annotation dropped", "annotations dropped"),
        ("box clipped", "boxes clipped"),
        ("crowd not trained on", "crowds not trained on"),
        ("annotation marked ignore not trained on", "annotations marked ignore not trained on"),
    )
    told = [counted(count, *what) for count, what in zip(counts, words, strict=True) if count]
    told += [f"{dropped_classes(dataset.table.dropped)} left out"] if dataset.table.dropped else []
    return f" ({', '.join(told)})" if told else ""

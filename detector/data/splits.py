"""Which files a split of a data set has, and what becomes of what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from detector.config.checks import is_target
from detector.config.schema import DataConfig
from detector.config.targets import word_of
from detector.data import shapes
from detector.data.problems import InvalidData
from detector.exceptions import DataError, MissingData
from detector.files import file_digest

if TYPE_CHECKING:
    from detector.data.annotations import Annotations
    from detector.data.coco import DetectionDataset
    from detector.data.own_dataset import OwnData


@dataclass(frozen=True)
class Split:
    """One split of a data set.

    Attributes:
        name: "train" or "val".
        annotations: COCO JSON.
        images: folder that its file names are relative to.
        on_invalid: what :class:`CocoDataset` does about problems: "error", "drop" or "clip".
        keep_empty: keep images without a box.
        drop_categories: names of classes to leave out; those that the file does not have are passed over.
        exif, white: how image files are read; see :class:`CocoDataset`.
        on_invalid_key: the key that sets ``on_invalid``, for messages.
        keys: the keys that name the file and the folder, for messages.
        own: the user's own data set, which takes the place of the files; None: there is none.
    """

    name: str
    annotations: Path
    images: Path
    on_invalid: str = "error"
    keep_empty: bool = True
    drop_categories: tuple[str, ...] = ()
    exif: str = "auto"
    white: int = 65535
    on_invalid_key: str = "on_invalid"
    keys: str = "annotations and images"
    own: OwnData | None = None

    @property
    def drops_invalid(self) -> bool:
        """Whether annotations that cannot be read are left out instead of being an error."""
        return self.on_invalid != "error"

    def read(self, need_pictures: bool = True) -> Annotations:
        """The annotations, without the classes that are left out.

        Args:
            need_pictures: as of :func:`~detector.data.annotations.read_annotations`.

        Raises:
            DataError: the file is missing or cannot be read.
        """
        from detector.data.annotations import read_annotations

        if self.own is not None:
            return self.own.annotations(self.drop_categories)
        return read_annotations(self.annotations, need_pictures, drop_categories=self.drop_categories)

    def dataset(self) -> DetectionDataset:
        """The images and boxes.

        Raises:
            DataError: a file is missing or cannot be used; lists what is wrong.
        """
        from detector.data.coco import CocoDataset  # PyTorch takes seconds to import
        from detector.data.own_dataset import OwnDataset

        with self.naming_keys():
            read = self.read()
            if self.own is not None:
                return OwnDataset(self.own, read, self.on_invalid, self.keep_empty)
            dataset = CocoDataset(read, self.images, on_invalid=self.on_invalid, keep_empty=self.keep_empty)
        dataset.exif, dataset.white = self.exif, self.white
        return dataset

    def digest(self) -> str:
        """Of the annotations: other ones, another digest.

        Raises:
            DataError, OSError: they cannot be read.
        """
        return file_digest(self.annotations) if self.own is None else self.own.digest(self.drop_categories)

    @contextmanager
    def naming_keys(self) -> Iterator[None]:
        """Adds to an error which keys name a file or folder that is not there, or say what becomes of bad entries."""
        try:
            yield
        except MissingData as error:
            raise DataError(f"{error} Set {self.keys}.") from None
        except InvalidData as error:
            raise InvalidData(error.file, error.problems, self.on_invalid_key) from None


def find_split(data: DataConfig, name: str, elsewhere: str = "Set data.root to a folder that can be written.") -> Split:
    """The files of a split, whether they are there or not; the built-in data set is drawn if it is not there.

    Nothing of a data set of the user's own is imported before it is read.

    Args:
        data: configuration of the data set.
        name: "train" or "val".
        elsewhere: how the user can have the built-in data set in another folder, for messages.

    Raises:
        ConfigError: the built-in data set cannot be drawn with these keys.
        DataError: no annotation file is named for the split, or the built-in data set cannot be written.
    """
    root = Path(data.root).expanduser()
    own = None
    if is_own(data):
        from detector.data.own_dataset import OwnData

        own = OwnData(data.name, name, data.workers)
        root, annotations, images = Path(), own.name, ""
    elif is_builtin(data):
        try:
            root = shapes.ensure_shapes(root, data.shapes)
        except DataError as error:
            raise DataError(f"{error} {elsewhere}".strip()) from None
        annotations, images = shapes.files(name)
    elif has_split(data, name):
        annotations, images = _named_files(data, name)
    else:
        raise DataError(f"data.{name}_annotations is empty: name the annotation file of the {name} images")
    # Every image counts in evaluation, those without a box too.
    keep_empty = data.keep_empty or name != "train"
    split = Split(name, root / annotations, root / images, data.on_invalid, keep_empty, tuple(data.drop_categories))
    keys = f"data.root, data.{name}_annotations and data.{name}_images"
    return replace(split, exif=data.exif, white=data.white, keys=keys, on_invalid_key="data.on_invalid", own=own)


def validation_split(data: DataConfig, trained: str, elsewhere: str = "") -> Split:
    """The validation split that ``trained``, a checkpoint or a run, was trained with.

    Args:
        data: its configuration.
        trained: its name, for messages.
        elsewhere: how the user can say where the data are now; "": in no way.

    Raises:
        DataError: its files are not where they were in training.
    """
    split = find_split(data, "val", elsewhere)
    for path in (split.annotations, split.images) if split.own is None else ():
        if not path.exists():
            raise DataError(
                f"{trained} was trained with the validation set {split.annotations} and the images in {split.images}, "
                f"but there is no {path} (relative paths start at {Path.cwd()}). {elsewhere}".strip()
            )
    return split


def has_split(data: DataConfig, name: str) -> bool:
    """Whether the configuration names the split."""
    return is_builtin(data) or is_own(data) or bool(_named_files(data, name)[0])


def _named_files(data: DataConfig, name: str) -> tuple[str, str]:
    train, val = (data.train_annotations, data.train_images), (data.val_annotations, data.val_images)
    return {"train": train, "val": val}[name]


def is_builtin(data: DataConfig) -> bool:
    """Whether the data set is the built-in one, which is drawn from a seed."""
    return data.name == "shapes"


def is_own(data: DataConfig) -> bool:
    """Whether the data set is made by a class of the user's."""
    return is_target(data.name)


def is_undrawn(data: DataConfig) -> bool:
    """Whether the data set is the built-in one and not there: :func:`find_split` would draw it."""
    return is_builtin(data) and not shapes.folder_of(Path(data.root).expanduser(), data.shapes).is_dir()


def fingerprint(data: DataConfig) -> str:
    """The content of the data set in a few characters; equal configurations may name different content.

    It is the version of the built-in drawing, the class of a data set of the user's own, whose content is not looked
    at, or digests of the annotation files. Nothing is drawn.

    Raises:
        OSError: an annotation file cannot be read.
    """
    if is_builtin(data):
        return f"shapes {shapes.VERSION}"
    if is_own(data):
        return word_of(data.name)
    return " ".join(file_digest(find_split(data, name).annotations) for name in ("train", "val"))

"""A cell of a study: one combination of levels with one seed, its configuration, and its files on disk.

Its folder is named after its levels, its seed and a hash of everything that its numbers depend on, so a changed
configuration makes other cells and never overwrites or takes over the results of older ones.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from detector.config.schema import Config, DataConfig, StudyConfig, to_dict
from detector.data.splits import fingerprint
from detector.exceptions import DataError
from detector.files import read_json_or_empty, write_json

CELL, RECORD, FAILURE = "cell.json", "record.json", "failure.json"
# Keys that the numbers of a run do not depend on: where files are, what is shown and written, how the work is shared.
WITHOUT_EFFECT = (
    "run_dir", "resume", "seed", "logger", "data.root", "data.workers", "trainer.progress_bar", "trainer.log_every",
    "trainer.threads", "trainer.checkpoint_every", "trainer.checkpoint_minutes", "trainer.profile_steps",
    "trainer.detect_anomaly", "trainer.val_loss",
)  # fmt: skip
Levels = dict[str, str]
"""Factor -> level."""


@dataclass(frozen=True)
class Cell:
    """One training run of a study.

    Attributes:
        levels: its level of each factor.
        seed: of the run.
        config: its configuration, with ``run_dir`` in the folder of the cell.
        hash: ten hexadecimal digits of all that the result depends on, the seed and the data included.
        folder: of the cell.
    """

    levels: Levels
    seed: int
    config: Config
    hash: str
    folder: Path

    @property
    def name(self) -> str:
        """What the cell is called in ``cell=NAME``, and its folder."""
        return self.folder.name

    @property
    def label(self) -> str:
        """The cell in words."""
        return f"{describe(self.levels)}, seed {self.seed}"

    @cached_property
    def record(self) -> dict[str, Any]:
        """What a finished run left; empty if it is not finished."""
        found = read_json_or_empty(self.folder / RECORD)
        return found if found.get("hash") == self.hash else {}

    @property
    def failure(self) -> dict[str, Any]:
        """Why the last attempt ended without a record; empty if there was none."""
        return read_json_or_empty(self.folder / FAILURE)

    def write(self, study: StudyConfig) -> None:
        """Write ``cell.json``, which is all that the process of the run needs."""
        content = {"study": study.name, "levels": self.levels, "seed": self.seed, "hash": self.hash,
                   "keep_weights": study.keep_weights, "config": to_dict(self.config)}  # fmt: skip
        write_json(self.folder / CELL, content)


def describe(levels: Levels) -> str:
    """The levels in words."""
    return ", ".join(levels.values())


def cells_of(levels: Levels, config: Config, seeds: list[int], folder: Path) -> list[Cell]:
    """The cells of a combination of levels, by seed.

    Args:
        levels: the combination.
        config: its configuration.
        seeds: one cell for each.
        folder: that the folders of the cells are in.

    Raises:
        DataError: an annotation file is missing.
    """
    identity = identity_of(config)
    # The digest tells cells apart; a file system takes 255 bytes.
    slug = "-".join(re.sub(r"\W+", "_", level).strip("_") for level in levels.values())[:70]
    cells = []
    for seed in seeds:
        digest = hashlib.sha256(f"{identity} seed {seed}".encode()).hexdigest()[:10]
        own, own_folder = copy.deepcopy(config), folder / f"{slug}-seed{seed}-{digest}"
        own.seed, own.run_dir, own.resume, own.logger.csv = seed, str(own_folder / "run"), "auto", True
        cells.append(Cell(levels, seed, own, digest, own_folder))
    return cells


def identity_of(config: Config) -> str:
    """All that the numbers of a run depend on besides its seed, as JSON text: keys and the content of the data."""
    content = to_dict(config)
    for key in WITHOUT_EFFECT:
        *groups, name = key.split(".")
        part = content
        for group in groups:
            part = part[group]
        part.pop(name, None)
    return json.dumps({"config": content, "data": data_fingerprint(config.data)}, sort_keys=True)


def data_fingerprint(data: DataConfig) -> str:
    """What identifies the data: the version of the built-in drawing, or the content of the annotation files.

    Raises:
        DataError: an annotation file is missing.
    """
    try:
        return fingerprint(data)
    except OSError as error:
        file = Path(error.filename).absolute()
        raise DataError(
            f"{file.name} was looked for in {file.parent}: the annotations cannot be read: {error.strerror}. Say where "
            "the data are: 'set={data.root:DIR}'"
        ) from None

"""A study: the grid of factors, levels and seeds, and what of it is done on disk.

A run of the grid is a cell. Its folder is named after its levels, its seed and a hash of everything that its numbers
depend on, so a changed configuration makes other cells and never overwrites or takes over the results of older ones.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from detector.config.checks import flat
from detector.config.composition import check_choice, compose
from detector.config.schema import Config, DataConfig, StudyConfig, parse, to_dict
from detector.data.splits import fingerprint
from detector.evaluation.metrics import METRIC_NAMES
from detector.exceptions import ConfigError, DataError
from detector.files import replacing

CELL, RECORD, FAILURE = "cell.json", "record.json", "failure.json"
METRICS = METRIC_NAMES
# Keys that the numbers of a run do not depend on: where files are, what is shown and written, how the work is shared.
WITHOUT_EFFECT = (
    "run_dir", "resume", "seed", "logger", "data.root", "data.workers", "trainer.progress_bar", "trainer.log_every",
    "trainer.threads", "trainer.checkpoint_every", "trainer.checkpoint_minutes", "trainer.profile_steps",
    "trainer.detect_anomaly",
)  # fmt: skip
Arm = dict[str, str]
"""Factor -> level."""


@dataclass(frozen=True)
class Cell:
    """One training run of a study.

    Attributes:
        arm: its level of each factor.
        seed: of the run.
        config: its configuration, with ``run_dir`` in the folder of the cell.
        hash: ten hexadecimal digits of all that the result depends on, the seed and the data included.
        folder: of the cell.
    """

    arm: Arm
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
        return f"{describe(self.arm)}, seed {self.seed}"

    @cached_property
    def record(self) -> dict[str, Any] | None:
        """What a finished run left; None if it is not finished."""
        found = read_json_or_none(self.folder / RECORD)
        return found if found is not None and found.get("hash") == self.hash else None

    @property
    def failure(self) -> dict[str, Any] | None:
        """Why the last attempt ended without a record; None if there was none."""
        return read_json_or_none(self.folder / FAILURE)

    def write(self, study: StudyConfig) -> None:
        """Write ``cell.json``, which is all that the process of the run needs."""
        content = {"study": study.name, "arm": self.arm, "seed": self.seed, "hash": self.hash,
                   "keep_weights": study.keep_weights, "config": to_dict(self.config)}  # fmt: skip
        write_json(self.folder / CELL, content)


@dataclass
class Study:
    """The cells of a study.

    Args:
        config: factors, levels, seeds and common settings.
        folder: of the study.
        configs: folders of configs, the last one with ``train.yaml``.
        extra: more groups and keys for every run, stronger than those of the study.
        source: the file that it was read from, for messages.

    Raises:
        ConfigError: a factor, level, group, key or value is wrong; names it.
        DataError: the annotation files of a run are missing.
    """

    config: StudyConfig
    folder: Path
    configs: Sequence[Path]
    extra: Mapping[str, Any] = field(default_factory=dict)
    source: Path | None = None

    def __post_init__(self) -> None:
        self.factors = {name: levels_of(name, levels) for name, levels in self.config.factors.items()}
        check_study(self.config, self.factors)
        for factor, levels in self.factors.items():
            for key in {key for settings in levels.values() for key in settings} & self.extra.keys():
                raise ConfigError(f"set={{{key}: ...}}: {key} is what the factor {factor} of this study varies")
        self.compare = self.config.compare or next(iter(self.factors))
        self.baseline = self.config.baseline or next(iter(self.factors[self.compare]))
        self.arms: list[Arm] = [
            dict(zip(self.factors, levels, strict=True)) for levels in itertools.product(*self.factors.values())
        ]
        self.cells = [cell for arm in self.arms for cell in self.cells_of(arm)]

    def cells_of(self, arm: Arm) -> Iterator[Cell]:
        """The cells of an arm, by seed."""
        try:
            config = self.compose(arm)
            check_run(config)
        except ConfigError as error:
            raise ConfigError(f"{self.origin(arm)}: {error}") from None
        identity = identity_of(config)
        for seed in self.config.seeds:
            digest = hashlib.sha256(f"{identity} seed {seed}".encode()).hexdigest()[:10]
            # The digest tells cells apart; a file system takes 255 bytes.
            slug = "-".join(re.sub(r"\W+", "_", level).strip("_") for level in arm.values())[:70]
            folder = self.folder / "runs" / f"{slug}-seed{seed}-{digest}"
            own = copy.deepcopy(config)
            own.seed, own.run_dir, own.resume, own.logger.csv = seed, str(folder / "run"), "auto", True
            yield Cell(arm, seed, own, digest, folder)

    def origin(self, arm: Arm) -> str:
        """Where a configuration that cannot be used has its mistake: in what all runs share, or in this arm."""
        common = f"study {self.config.name}, common" + (f" of {self.source}" if self.source else "")
        for words, settings in (("set={...}", self.extra), (common, flat(self.config.common))):
            try:
                self.composed(settings)
            except ConfigError:
                return words
        return f"study {self.config.name}, {describe(arm)}"

    def compose(self, arm: Arm) -> Config:
        """The configuration of an arm: the common settings, then those of its levels, then ``extra``."""
        settings: dict[str, Any] = flat(self.config.common)
        for factor, level in arm.items():
            settings.update(self.factors[factor][level])
        return self.composed({**settings, **self.extra})

    def composed(self, settings: Mapping[str, Any]) -> Config:
        """The training configuration with these groups and keys."""
        groups = {path.name for folder in self.configs for path in folder.iterdir() if path.is_dir()}
        for key, value in settings.items():
            if key in groups:
                for name in value if isinstance(value, list) else [value]:
                    check_choice(self.configs, key, str(name))
        words = tuple(f"{key}={value}" for key, value in settings.items() if key in groups)
        composed = copy.deepcopy(composed_once(tuple(self.configs), words))
        for key, value in settings.items():
            if key not in groups:
                OmegaConf.update(composed, key, value, merge=False, force_add=True)
        return parse(composed, Config)

    def context(self, arm: Arm) -> str:
        """The levels of an arm apart from the factor that is compared; "" if there is no other factor."""
        return ", ".join(level for factor, level in arm.items() if factor != self.compare)

    @property
    def contexts(self) -> list[str]:
        """All of them, in the order of the grid."""
        return list(dict.fromkeys(self.context(arm) for arm in self.arms))

    def finished(self) -> list[Cell]:
        """Cells with a record."""
        return [cell for cell in self.cells if cell.record is not None]

    def failed(self) -> list[Cell]:
        """Cells whose last attempt failed."""
        return [cell for cell in self.cells if cell.record is None and cell.failure is not None]

    def missing(self) -> list[Cell]:
        """Cells that were never tried to their end."""
        return [cell for cell in self.cells if cell.record is None and cell.failure is None]

    def strangers(self) -> list[str]:
        """Finished runs in the folder of the study that are no cells of it, as it is configured now."""
        own = {cell.name for cell in self.cells}
        records = self.folder.glob(f"runs/*/{RECORD}")
        return sorted(p.parent.name for p in records if p.parent.name not in own and read_json_or_none(p) is not None)


def describe(arm: Arm) -> str:
    """The levels of an arm."""
    return ", ".join(arm.values())


def levels_of(factor: str, levels: Any) -> dict[str, dict[str, Any]]:
    """The levels of a factor: name -> groups and keys with their values.

    Raises:
        ConfigError: neither a list of values nor a mapping of levels.
    """
    if isinstance(levels, list) and levels and not any(isinstance(level, dict) for level in levels):
        named = {str(level).replace(" ", "") if isinstance(level, list) else str(level): {factor: level}
                 for level in levels}  # fmt: skip
        if len(named) == len(levels):
            return named
    if isinstance(levels, dict) and levels and all(isinstance(v, dict) and v for v in levels.values()):
        return {str(name): flat(settings) for name, settings in levels.items()}
    raise ConfigError(
        f"study.factors.{factor}={levels}: give a list of different values, as in [pool, align], or a mapping of "
        "levels to their settings, as in {stride 32: {model: c5}}"
    )


def check_study(config: StudyConfig, factors: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise :class:`ConfigError` for a study that cannot be compared."""
    if not factors:
        raise ConfigError("study.factors: name at least one factor with its levels, as in {roi: [pool, align]}")
    if config.compare and config.compare not in factors:
        raise ConfigError(f"study.compare={config.compare}: must be one of the factors {', '.join(factors)}")
    compared = config.compare or next(iter(factors))
    if config.baseline and config.baseline not in factors[compared]:
        raise ConfigError(f"study.baseline={config.baseline}: must be one of {', '.join(factors[compared])}")
    if not config.seeds or len(set(config.seeds)) != len(config.seeds):
        raise ConfigError(f"study.seeds={config.seeds}: give at least one, and each once")
    unknown = [name for name in config.metrics if name not in METRICS]
    if unknown or not config.metrics:
        raise ConfigError(f"study.metrics={config.metrics}: must be some of {', '.join(METRICS)}")
    owners: dict[str, str] = {}
    for factor, levels in factors.items():
        for key in {key for settings in levels.values() for key in settings}:
            if key in ("seed", "run_dir", "resume"):
                raise ConfigError(f"study.factors.{factor}: {key} is set by the study itself (study.seeds, study_dir)")
            if owners.setdefault(key, factor) != factor:
                raise ConfigError(f"study.factors: {owners[key]} and {factor} both set {key}")


def check_run(config: Config) -> None:
    """Raise :class:`ConfigError` for what a run would refuse before it reads its data."""
    from detector.models.faster_rcnn import check_model  # PyTorch takes seconds to import
    from detector.models.poolers import check_parameters
    from detector.training.length import check_length

    check_parameters(config.roi)
    check_model(config.model)
    if not config.trainer.epochs:  # else the length depends on the data
        check_length(config)


@cache
def composed_once(configs: tuple[Path, ...], words: tuple[str, ...]) -> Any:
    """The training configuration with the choices ``words``; composing takes a fifth of a second."""
    return compose(configs, "train", [*words, "run_dir=''"])


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
        raise DataError(
            f"{error.filename}: the annotations cannot be read: {error.strerror}. Say where the data are: "
            "'set={data.root:DIR}'"
        ) from None


def read_json_or_none(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is no such file or it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file under a temporary name and rename it; parent folders are made."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")

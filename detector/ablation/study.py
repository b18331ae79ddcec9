"""A study: the grid of factors, levels and seeds, and what of it is done on disk."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from detector.ablation.cells import RECORD, Cell, Levels, cells_of, describe
from detector.config.checks import flat
from detector.config.composition import check_choice, compose, group_names
from detector.config.defaults import parse_partial
from detector.config.schema import Config, StudyConfig
from detector.config.targets import check_imports
from detector.evaluation.metrics import METRIC_NAMES
from detector.exceptions import ConfigError, DataError
from detector.files import read_json_or_empty


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
        check_study(self.config, self.factors, self.extra)
        self.compare = self.config.compare or next(iter(self.factors))
        self.baseline = self.config.baseline or next(iter(self.factors[self.compare]))
        self.combinations: list[Levels] = [
            dict(zip(self.factors, levels, strict=True)) for levels in itertools.product(*self.factors.values())
        ]
        try:
            self.cells = [cell for levels in self.combinations for cell in cells_of(
                levels, self.compose(levels), self.config.seeds, self.folder / "runs")]  # fmt: skip
        except DataError as error:
            raise DataError(f"study {self.config.name}: {error}") from None

    def compose(self, levels: Levels) -> Config:
        """The configuration of some levels: the common settings, then theirs, then ``extra``.

        Raises:
            ConfigError: it cannot be used; says where the mistake is.
        """
        settings: dict[str, Any] = flat(self.config.common)
        for factor, level in levels.items():
            settings.update(self.factors[factor][level])
        try:
            config = self.composed({**settings, **self.extra})
            check_run(config)
            return config
        except ConfigError as error:
            raise ConfigError(f"{self.origin(levels)}: {error}") from None

    def origin(self, levels: Levels) -> str:
        """Where a configuration that cannot be used has its mistake: in what all runs share, or in these levels."""
        common = f"study {self.config.name}, common" + (f" of {self.source}" if self.source else "")
        for origin, settings in (("set={...}", self.extra), (common, flat(self.config.common))):
            try:
                self.composed(settings)
            except ConfigError:
                return origin
        return f"study {self.config.name}, {describe(levels)}"

    def composed(self, settings: Mapping[str, Any]) -> Config:
        """The training configuration with these groups and keys."""
        groups = group_names(self.configs)
        for key, value in settings.items():
            if key in groups:
                for name in value if isinstance(value, list) else [value]:
                    check_choice(self.configs, key, str(name))
        choices = tuple(f"{key}={value}" for key, value in settings.items() if key in groups)
        composed = copy.deepcopy(composed_once(tuple(self.configs), choices))
        for key, value in settings.items():
            if key not in groups:
                OmegaConf.update(composed, key, value, merge=False, force_add=True)
        return parse_partial(composed)

    def context(self, levels: Levels) -> str:
        """The levels of all factors but the one that is compared; "" if there is no other factor."""
        return ", ".join(level for factor, level in levels.items() if factor != self.compare)

    @property
    def contexts(self) -> list[str]:
        """All contexts, in the order of the grid."""
        return list(dict.fromkeys(map(self.context, self.combinations)))

    def finished(self) -> list[Cell]:
        """Cells with a record."""
        return [cell for cell in self.cells if cell.record]

    def failed(self) -> list[Cell]:
        """Cells whose last attempt failed."""
        return [cell for cell in self.cells if not cell.record and cell.failure]

    def missing(self) -> list[Cell]:
        """Cells that were never tried to their end."""
        return [cell for cell in self.cells if not cell.record and not cell.failure]

    def runs_of_other_configurations(self) -> list[str]:
        """Finished runs in the folder of the study that are no cells of it, as it is configured now."""
        own = {cell.name for cell in self.cells}
        records = self.folder.glob(f"runs/*/{RECORD}")
        return sorted(p.parent.name for p in records if p.parent.name not in own and read_json_or_empty(p))


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


def check_study(config: StudyConfig, factors: Mapping[str, Mapping[str, Any]], extra: Mapping[str, Any]) -> None:
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
    unknown = [name for name in config.metrics if name not in METRIC_NAMES]
    if unknown or not config.metrics:
        raise ConfigError(f"study.metrics={config.metrics}: must be some of {', '.join(METRIC_NAMES)}")
    owners: dict[str, str] = {}
    for factor, levels in factors.items():
        for key in {key for settings in levels.values() for key in settings}:
            if key in ("seed", "run_dir", "resume"):
                raise ConfigError(f"study.factors.{factor}: {key} is set by the study itself (study.seeds, study_dir)")
            if owners.setdefault(key, factor) != factor:
                raise ConfigError(f"study.factors: {owners[key]} and {factor} both set {key}")
            if key in extra:
                raise ConfigError(f"set={{{key}: ...}}: {key} is what the factor {factor} of this study varies")


def check_run(config: Config) -> None:
    """Raise :class:`ConfigError` for what a run would refuse before it reads its data."""
    from detector.models.faster_rcnn import check_model  # PyTorch takes seconds to import
    from detector.models.poolers import check_parameters
    from detector.training.length import check_length

    check_parameters(config.roi)
    check_imports(config)
    check_model(config.model)
    if not config.trainer.epochs:  # else the length depends on the data
        check_length(config)


@cache
def composed_once(configs: tuple[Path, ...], choices: tuple[str, ...]) -> Any:
    """The training configuration with these choices of groups; composing takes a fifth of a second."""
    return compose(configs, "train", [*choices, "run_dir=''"])

"""The jobs of a ``--multirun``, known before the first one runs, and the best of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf import OmegaConf

from detector.config.overrides import Configs, parse_overrides
from detector.exceptions import ConfigError

RESULTS = "optimization_results.yaml"  # written by Hydra's sweeper for Optuna into the folder of the sweep


def values_of(override: Override) -> list[str]:
    """The arguments that an override stands for: one, or those of a sweep; of an interval the two ends.

    Raises:
        ConfigError: Hydra cannot sweep it.
    """
    if not override.is_sweep_override():
        return [override.input_line or ""]
    value, key = override.value(), override.get_key_element()
    if override.is_hydra_override():
        raise ConfigError(
            f"'{override.input_line}': Hydra's own keys do not vary; a value with such signs wants quotes"
        )
    if isinstance(value, IntervalSweep):
        return [f"{key}={value.start}", f"{key}={value.end}"]
    try:
        return [f"{key}={text}" for text in override.sweep_string_iterator()]
    except HydraException as error:
        raise ConfigError(f"'{override.input_line}': {error}") from None


def jobs(overrides: Sequence[Override]) -> Iterator[list[str]]:
    """Arguments of single jobs in which every value of a sweep occurs at least once."""
    options = [values_of(override) for override in overrides]
    first = [values[0] for values in options]
    yield first
    for place, values in enumerate(options):
        yield from ([*first[:place], value, *first[place + 1 :]] for value in values[1:])


def search_space(configs: Configs, given: Sequence[Override]) -> list[Override]:
    """What a config sweeps over on top of the command line: ``hydra.sweeper.params``, as ``hparams=NAME`` sets it.

    Args:
        configs: that the command line chooses from.
        given: what is on the command line, which wins over a config.

    Raises:
        ConfigError: the sweeper is not installed, or cannot do what is given.
    """
    sweeper = configs.compose(next(jobs(given)), hydras=True).hydra.sweeper
    space = OmegaConf.to_container(sweeper).get("params") or {}  # type: ignore[union-attr]
    keys = {override.key_or_group for override in given}
    found = parse_overrides([f"{key}={value}" for key, value in space.items() if key not in keys])
    if sweeper._target_.endswith("BasicSweeper"):
        for override in [*given, *found]:
            if override.is_interval_sweep():
                raise ConfigError(
                    f"{override.input_line}: only a search takes an interval; add hydra/sweeper=optuna, or give values "
                    f"as in {override.key_or_group}=A,B"
                )
    return found


def is_last_trial(hydra: Any) -> bool:
    """Whether a job is the last of a search whose trials all run in this process."""
    alone = hydra.launcher._target_.endswith("BasicLauncher")
    return alone and hydra.job.num + 1 == hydra.sweeper.get("n_trials")


def show_best(folder: Path, ended: Mapping[str, Any], show: Callable[[str], None]) -> None:
    """Show the best of the trials of a search, if there was one, from what its sweeper has written.

    Args:
        folder: of the sweep.
        ended: folder of a trial -> its value, of those that ran in this process.
        show: prints a line.
    """
    file = folder / RESULTS
    if not file.is_file():
        return
    found = yaml.safe_load(file.read_text(encoding="utf-8"))
    if "best_params" in found:  # else there are several objectives
        words = " ".join(f"{key}={value}" for key, value in found["best_params"].items())
        where = next((f": {place}" for place, value in ended.items() if value == found["best_value"]), "")
        show(f"The best trial has {found['best_value']:.4g} with {words}{where}")
    show(f"The result of the search is in {file}")

"""The arguments of a script, checked before Hydra composes them, and the jobs that Hydra makes of them."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from detector.config.composition import SEARCH, config_folders, in_quotes, own_files, quote, search_path
from detector.config.job import check_resolved, parse_job
from detector.config.overrides import Configs, check_lengths, parse_overrides, raise_together
from detector.config.sweep import jobs, search_space
from detector.exceptions import ConfigError

# Hydra is to leave no trace: no folder of its own for each run, no change of the working directory, no log files.
QUIET = ("hydra.output_subdir=null", "hydra/job_logging=none")
SINGLE = (*QUIET, "hydra.run.dir=.", "hydra/hydra_logging=none")
SWEEP = (*QUIET, "hydra.sweep.subdir='${hydra.job.num}'")


class CommandLine:
    """The arguments of this process, and the configs that they choose from.

    Args:
        configs: the folder with the primary config and the groups.
        config_name: the primary config.
        schema: the configuration dataclass.
        positional: the key for arguments without ``KEY=``; "" for none.

    Raises:
        ConfigError: the configs are missing, or an argument cannot be read.
    """

    def __init__(self, configs: Path, config_name: str, schema: type, positional: str = ""):
        self.flags, arguments = parse_options(sys.argv[1:])
        # Hydra itself wants its options in front of the overrides.
        self.options = list(sys.argv[1:])
        for argument in arguments:
            self.options.remove(argument)
        if positional:
            arguments = collect_positional(arguments, positional)
        self.config_name = config_name
        self.schema = schema
        self.folders = config_folders(self.flags.config_dir or "", configs)
        primary = self.flags.config_name
        self.configs = Configs(self.folders, primary or config_name, schema, given=bool(primary))
        self.arguments = [self.configs.for_hydra(argument) for argument in arguments]
        self.overrides = parse_overrides(self.arguments)
        own = [str(o.value()) for o in self.overrides if o.key_or_group == "hydra.sweep.dir"]
        self.sweep_folder = own[-1] if own else f"runs/{config_name}/{time.strftime('%Y-%m-%d_%H-%M-%S')}"

    def hydra_settings(self) -> tuple[str, ...]:
        """Settings of Hydra's that come on top of what the user gave."""
        given = {o.key_or_group for o in self.overrides}
        settings = (*SWEEP, f"hydra.sweep.dir={quote(self.sweep_folder)}") if self.sweeps() else SINGLE
        return tuple(s for s in settings if s.split("=")[0] not in given)

    def sweeps(self) -> bool:
        """Whether Hydra will run several jobs."""
        return self.flags.multirun or any(
            o.key_or_group == "hydra.mode" and o.value() == "MULTIRUN" for o in self.overrides
        )

    def start(self, function: Callable[[DictConfig], Any], arguments: Sequence[str]) -> None:
        """Let Hydra call ``function`` with the configuration of each job that ``arguments`` and the options say."""
        sys.argv[1:] = [*self.options, *arguments, *search_path(self.folders[:-1])]
        with own_files(self.folders):
            hydra.main(version_base="1.3", config_path=str(self.folders[-1]), config_name=self.config_name)(function)()

    # -------------------------------------------------------------------------------------------- checks
    def check(self) -> None:
        """Raise :class:`ConfigError` for a wrong group, choice, key or value, of any job of a sweep."""
        if self.flags.multirun and self.flags.cfg:
            raise ConfigError("--cfg shows the configuration of one job; leave --multirun out, or --cfg")
        self.check_each(self.overrides)
        given = {o.key_or_group: o.value() for o in self.overrides if not o.is_sweep_override()}
        if self.sweeps() and given.get("resume") == "auto" and not {"hydra.sweep.dir", "run_dir"} & given.keys():
            raise ConfigError("resume=auto in a --multirun: say which sweep is to go on: hydra.sweep.dir=FOLDER")
        if not self.sweeps():
            if (choice := given.get(SEARCH)) and not self.flags.cfg:
                raise ConfigError(f"{SEARCH}={choice}: a space to search in, by several runs; add --multirun")
            self.check_job(self.arguments)  # Hydra says what is wrong with a sweep outside --multirun
            return
        space = search_space(self.configs, self.overrides)
        try:
            self.check_each(space)
        except ConfigError as error:
            raise ConfigError(f"hydra.sweeper.params: {error}") from None
        for arguments in jobs([*self.overrides, *space]):
            self.check_job(arguments)

    def check_each(self, overrides: Sequence[Override]) -> None:
        """Raise :class:`ConfigError` that names every wrong group, choice and key."""
        wrong = []
        for override in overrides:
            if not override.key_or_group.startswith("hydra"):
                try:
                    self.configs.check(override)
                except ConfigError as error:
                    wrong.append(error)
        raise_together(wrong)

    def check_job(self, arguments: Sequence[str]) -> None:
        """Raise :class:`ConfigError` for a wrong value in the configuration of one job."""
        cfg = self.configs.compose(arguments)
        check_lengths(cfg, [override.key_or_group for override in self.overrides])
        # What refers to the state of a running job is checked in the job.
        if "${hydra:" not in OmegaConf.to_yaml(cfg):
            parse_job(cfg, self.schema, self.sweeps())
            if self.flags.cfg and "--resolve" in self.options:
                check_resolved(cfg)

    def compose(self) -> DictConfig:
        """The configuration of the only job."""
        return self.configs.compose(self.arguments)


def parse_options(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options of Hydra that matter here, and the arguments that are no options, wherever they stand."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--cfg", "-c")
    parser.add_argument("--info", "-i", nargs="?", const="all")
    parser.add_argument("--config-name", "-cn")
    parser.add_argument("--config-dir", "-cd")
    for option in (("--config-path", "-cp"), ("--package", "-p"), ("--experimental-rerun",)):
        parser.add_argument(*option)
    flags, rest = parser.parse_known_args(list(arguments))
    return flags, [argument for argument in rest if not argument.startswith("-")]


def collect_positional(arguments: Sequence[str], key: str) -> list[str]:
    """``arguments`` with those that are no ``KEY=VALUE`` together as ``key=[...]`` at the end."""

    def is_path(argument: str) -> bool:
        name, equals, _ = argument.partition("=")
        return not equals or ("/" in name and not name.startswith("hydra/")) or Path(argument).expanduser().exists()

    paths = [a for a in arguments if is_path(a)]
    return [a for a in arguments if not is_path(a)] + ([f"{key}=[{','.join(map(in_quotes, paths))}]"] if paths else [])

"""The arguments of a script, checked before Hydra composes them, and the jobs that Hydra makes of them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from detector.config.composition import config_folders, in_quotes, own_files, search_path
from detector.config.job import check_resolved, parse_job
from detector.config.overrides import Configs, check_lengths, parse_overrides, raise_together
from detector.exceptions import ConfigError

# Hydra is to leave no trace: no folder of its own for each run, no change of the working directory, no log files.
QUIET = ("hydra.output_subdir=null", "hydra/job_logging=none")
SINGLE = (*QUIET, "hydra.run.dir=.", "hydra/hydra_logging=none")
SWEEP = (*QUIET, "hydra.sweep.dir='runs/SCRIPT/${now:%Y-%m-%d_%H-%M-%S}'", "hydra.sweep.subdir='${hydra.job.num}'")


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
        self.arguments = [self.configs.quote_value(argument) for argument in arguments]
        self.overrides = parse_overrides(self.arguments)

    def hydra_settings(self) -> tuple[str, ...]:
        """Settings of Hydra's that come on top of what the user gave."""
        given = {o.key_or_group for o in self.overrides}
        settings = [s.replace("SCRIPT", self.config_name) for s in SWEEP] if self.sweeps() else SINGLE
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
        wrong = []
        for override in self.overrides:
            if not override.key_or_group.startswith("hydra"):
                try:
                    self.configs.check(override)
                except ConfigError as error:
                    wrong.append(error)
        raise_together(wrong)
        given = {o.key_or_group: o.value() for o in self.overrides if not o.is_sweep_override()}
        if self.sweeps() and given.get("resume") == "auto" and not {"hydra.sweep.dir", "run_dir"} & given.keys():
            raise ConfigError("resume=auto in a --multirun: say which sweep is to go on: hydra.sweep.dir=FOLDER")
        for arguments in self.jobs():
            cfg = self.compose(arguments)
            check_lengths(cfg, [override.key_or_group for override in self.overrides])
            # What refers to the state of a running job is checked in the job.
            if "${hydra:" not in OmegaConf.to_yaml(cfg):
                parse_job(cfg, self.schema, self.sweeps())
                if self.flags.cfg and "--resolve" in self.options:
                    check_resolved(cfg)

    def jobs(self) -> Iterator[list[str]]:
        """Arguments of single jobs in which every value of a sweep occurs at least once."""
        options: list[list[str]] = []
        for override in self.overrides:
            if override.is_sweep_override():
                try:
                    options.append([f"{override.get_key_element()}={v}" for v in override.sweep_string_iterator()])
                    continue
                except HydraException as error:
                    raise ConfigError(f"'{override.input_line}': {error}") from None
            options.append([override.input_line or ""])
        if not self.sweeps():  # Hydra says what is wrong with a sweep outside --multirun
            yield self.arguments
            return
        first = [values[0] for values in options]
        yield first
        for place, values in enumerate(options):
            yield from ([*first[:place], value, *first[place + 1 :]] for value in values[1:])

    def compose(self, arguments: Sequence[str]) -> DictConfig:
        """The configuration of one job."""
        return self.configs.compose(arguments)


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

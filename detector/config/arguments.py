"""The arguments of a script, checked before Hydra composes them: against the groups in ``configs/`` and the schema."""

from __future__ import annotations

import argparse
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from detector.config.checks import is_known, known_keys
from detector.config.commands import script
from detector.config.composition import (
    TUNED,
    check_choice,
    choices_of,
    compose,
    default_choices,
    first_comment,
    foreign_groups,
    group_names,
    in_quotes,
    own_files,
    quote,
    read_config,
)
from detector.config.job import check_resolved, parse_job
from detector.config.unknown_argument import unknown_argument
from detector.exceptions import ConfigError

# Hydra is to leave no trace: no folder of its own for each run, no change of the working directory, no log files.
QUIET = ("hydra.output_subdir=null", "hydra/job_logging=none")
SINGLE = (*QUIET, "hydra.run.dir=.", "hydra/hydra_logging=none")
SWEEP = (*QUIET, "hydra.sweep.dir='runs/SCRIPT/${now:%Y-%m-%d_%H-%M-%S}'", "hydra.sweep.subdir='${hydra.job.num}'")

# A key for a length in steps: the key for the same length in epochs, which counts unless it is 0.
EPOCHS_OF_STEPS = {"trainer.max_steps": "trainer.epochs", "trainer.eval_every": "trainer.eval_epochs"}


CLOSING = {"[": "]", "{": "}", "'": "'", '"': '"'}  # the ends of what Hydra reads as a list, a dict or a text


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
        extra = [Path(self.flags.config_dir).absolute()] if self.flags.config_dir else []
        self.folders = [*extra, configs]
        for folder in self.folders:
            if not folder.is_dir():
                raise ConfigError(f"{folder}: there is no such folder of configs")
        self.primary = self.flags.config_name or config_name
        files = [folder / f"{self.primary}.yaml" for folder in self.folders]
        self.file = next((file for file in files if file.is_file()), files[0])
        self.check_primary()
        self.arguments = [self.quote_value(argument) for argument in arguments]
        self.overrides = self.parse(self.arguments)

    def check_primary(self) -> None:
        """Raise :class:`ConfigError` if the primary config cannot be one: not the user's file, or one that was cut."""
        self.has_choices = "defaults" in (content := read_config(self.file))
        lacking = [field.name for field in fields(self.schema) if field.name not in content]
        if self.flags.config_name and lacking and not self.has_choices:
            go_on = (
                " To go on with its run without it, give run_dir and resume=auto and the other arguments as they were."
                if is_known("resume", self.schema)
                else ""
            )
            raise ConfigError(
                f"{self.file}: has no {', '.join(lacking)}. A config without a defaults list is a whole one, as a run "
                f"writes it; was this one cut?{go_on}"
            )

    def quote_value(self, argument: str) -> str:
        """``argument``, its value in quotes where Hydra would read it as something else, or not at all.

        Hydra reads some choices as numbers, as in debug=nan, and does not know all characters that paths may have; a
        path with a comma would be a sweep, one that begins with a bracket a list.
        """
        key, _, value = argument.partition("=")
        if value == "nan" and value in self.choices(key):
            return f"{key}='{value}'"
        if ("," in value or value[:1] in ("[", "{")) and os.path.exists(os.path.expanduser(value)):
            return f"{key}={quote(value)}"
        close = CLOSING.get(value[:1], "")
        if value and (not close or (close in value[1:] and not value.endswith(close))):
            try:
                self.parse([argument])
            except ConfigError:
                return f"{key}={quote(value)}"
        return argument

    @staticmethod
    def parse(arguments: Sequence[str]) -> list[Override]:
        """``key=value`` arguments in Hydra's grammar."""
        parser = OverridesParser.create()
        overrides = []
        for before, argument in zip(["", *arguments], arguments, strict=False):
            try:
                overrides += parser.parse_overrides([argument])
            except HydraException as error:
                reason = str(error).splitlines()[0]
                whole = f', or "{before} {argument}" in quotes' if "=" in before else ""  # data.root=/my photos
                hint = f"; did you mean {argument}=VALUE{whole}?" if "=" not in argument else ""
                raise ConfigError(f"cannot read the argument '{argument}': {reason}{hint}") from None
        return overrides

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
        sys.argv[1:] = [*self.options, *arguments]
        with own_files(self.folders):
            hydra.main(version_base="1.3", config_path=str(self.folders[-1]), config_name=self.config_name)(function)()

    # -------------------------------------------------------------------------------------------- checks
    def check(self) -> None:
        """Raise :class:`ConfigError` for a wrong group, choice, key or value, of any job of a sweep."""
        wrong = []
        for override in self.overrides:
            if not override.key_or_group.startswith("hydra"):
                try:
                    self.check_override(override)
                except ConfigError as error:
                    wrong.append(str(error))
        if wrong:
            raise ConfigError("\n       ".join(wrong))  # below the first one's "error: "
        given = {o.key_or_group: o.value() for o in self.overrides if not o.is_sweep_override()}
        if self.sweeps() and given.get("resume") == "auto" and not {"hydra.sweep.dir", "run_dir"} & given.keys():
            raise ConfigError("resume=auto in a --multirun: say which sweep is to go on: hydra.sweep.dir=FOLDER")
        for arguments in self.jobs():
            cfg = self.compose(arguments)
            self.check_lengths(cfg)
            # What refers to the state of a running job is checked in the job.
            if "${hydra:" not in OmegaConf.to_yaml(cfg):
                parse_job(cfg, self.schema, self.sweeps())
                if self.flags.cfg and "--resolve" in self.options:
                    check_resolved(cfg)

    def check_lengths(self, cfg: DictConfig) -> None:
        """Raise :class:`ConfigError` if a length in steps was given that a length in epochs, of a recipe, replaces."""
        given = {override.key_or_group for override in self.overrides}
        for steps, epochs in EPOCHS_OF_STEPS.items():
            length = OmegaConf.select(cfg, epochs)
            if steps in given and length:
                raise ConfigError(
                    f"{steps}: has no effect, as {epochs}={length:g} says the same in epochs. To count in steps give "
                    f"{epochs}=0 too."
                )

    def check_override(self, override: Override) -> None:
        """Raise :class:`ConfigError` unless the override names a group and a choice of it, or a key."""
        key = override.key_or_group
        if not self.choices(key) or self.is_foreign(key):
            if not is_known(key, self.schema):
                raise ConfigError(unknown_argument(override, self.schema, self.groups()))
            if override.is_add() and not override.is_force_add():
                raise ConfigError(f"+{key}: this key exists; give {key}=VALUE, without the plus")
            return
        if key == "tuning" and override.package is None:
            name = override.value() if isinstance(override.value(), str) else "NAME"
            raise ConfigError(
                f"tuning={name}: the tuning comes with data=NAME and sets keys of other groups; to have another one "
                f"give tuning@_global_={name}, to have none ~tuning@_global_"
            )
        if override.is_delete():
            if key in TUNED:
                raise ConfigError(f"~{key}: this group is needed; {key} is one of {', '.join(self.choices(key))}")
            return
        if self.flags.config_name and not (self.has_choices or override.is_add() or key.startswith("hydra")):
            raise ConfigError(
                f"{key}={override.value()}: {self.file} is a configuration without choices; set its keys one by one "
                f"({key}.KEY=VALUE), or leave --config-name out and give all arguments."
            )
        for value in self.values(override):
            if value is None:
                hint = "this group is needed" if key in TUNED else f"to leave a group out, give ~{key}"
                raise ConfigError(f"{key}=null: {hint}")
            for name in value if isinstance(value, list) else [value]:
                if not isinstance(name, dict):
                    check_choice(self.folders, key, str(name))

    def is_foreign(self, group: str) -> bool:
        """Whether ``group`` is one of ``configs/`` that other commands choose from, as ``model`` is for evaluate."""
        return not self.flags.config_name and group in foreign_groups(self.folders[-1], self.config_name)

    @staticmethod
    def values(override: Override) -> list[Any]:
        """The values that an override takes in turn: one, or those of a sweep."""
        if override.is_choice_sweep():
            return [v if not hasattr(v, "text") else v.text for v in override.sweep_iterator()]
        return [] if override.is_sweep_override() else [override.value()]

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
        return compose(self.folders, self.primary, arguments)

    def groups(self) -> list[str]:
        """Names of the groups that this command chooses from, sorted."""
        return [group for group in group_names(self.folders) if not self.is_foreign(group)]

    # ---------------------------------------------------------------------------------------------- help
    def choices(self, group: str) -> list[str]:
        """Names of the choices of a group, sorted; none if there is no such group."""
        return choices_of(self.folders, group)

    def help(self, function: Callable[..., Any]) -> str:
        """What ``--help`` prints: the groups with their choices, as their files begin."""
        module = sys.modules.get(function.__module__)
        configs, here = self.folders[-1], Path.cwd()
        about = inspect.cleandoc(module.__doc__ or "") if module else ""
        lines = [re.sub(r"scripts/(\w+)\.py", lambda found: script(found[1]), about), ""]
        chosen = default_choices(self.folders[-1], self.config_name)
        if "data" in chosen:
            chosen["tuning@_global_"] = None  # data chooses it
        for key, default in chosen.items():
            group = key.partition("@")[0]
            if choices := self.choices(group):
                lines.append(f"{group}:")
            for choice in choices:
                mark = " (default)" if choice == default else ""
                about = first_comment(self.folders, group, choice)
                lines.append(f"  {key + '=' + choice + mark:<34} {about}".rstrip())
        if len(lines) > 2:
            lines.append("")
        lines += [
            f"Any key can be set: python {script(Path(inspect.getfile(function)).stem)} KEY=VALUE ... "
            f"({self.example_keys()})",
            f"--cfg job --resolve prints all keys and their values; the files in "
            f"{configs.relative_to(here) if configs.is_relative_to(here) else configs}/ explain each of them",
            "--multirun KEY=A,B runs once for each value",
        ]
        return "\n".join(lines)

    def example_keys(self) -> str:
        """A few keys of the schema."""
        keys = [k for k in known_keys(self.schema) if "." in k] or known_keys(self.schema)
        return ", ".join([*keys[:2], "..."])


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

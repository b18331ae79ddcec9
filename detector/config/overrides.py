"""What a user sets on top of a primary config, checked against the groups of the folders and the keys of the schema."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from detector.config.checks import is_inside, is_known, is_target, whole_key
from detector.config.composition import (
    TUNED,
    check_choice,
    choices_of,
    compose,
    foreign_groups,
    group_names,
    in_quotes,
    quote,
    read_config,
)
from detector.config.unknown_argument import class_for_group, unknown_argument
from detector.exceptions import ConfigError

# A key for a length in steps: the key for the same length in epochs, which counts unless it is 0.
EPOCHS_OF_STEPS = {"trainer.max_steps": "trainer.epochs", "trainer.eval_every": "trainer.eval_epochs"}

CLOSING = {"[": "]", "{": "}", "'": "'", '"': '"'}  # the ends of what Hydra reads as a list, a dict or a text


class Configs:
    """A primary config, the groups that it chooses from, and the schema of what comes out.

    Args:
        folders: of configs, the shipped ones last.
        name: the primary config, without ``.yaml``.
        schema: the configuration dataclass.
        given: whether the user named the primary config.

    Raises:
        ConfigError: a folder or the primary config is missing, or it cannot be one.
    """

    def __init__(self, folders: Sequence[Path], name: str, schema: type, given: bool = False):
        self.folders, self.name, self.schema, self.given = list(folders), name, schema, given
        for folder in self.folders:
            if not folder.is_dir():
                raise ConfigError(f"{folder}: there is no such folder of configs")
        files = [folder / f"{name}.yaml" for folder in self.folders]
        self.file = next((file for file in files if file.is_file()), files[0])
        content = read_config(self.file)
        self.has_choices = "defaults" in content
        lacking = [field.name for field in fields(schema) if field.name not in content]
        if given and lacking and not self.has_choices:  # not the user's file, or one that was cut
            go_on = (
                " To go on with its run without it, give run_dir and resume=auto and the other arguments as they were."
                if is_known("resume", schema)
                else ""
            )
            raise ConfigError(
                f"{self.file}: has no {', '.join(lacking)}. A config without a defaults list is a whole one, as a run "
                f"writes it; was this one cut?{go_on}"
            )

    def choices(self, group: str) -> list[str]:
        """Names of the choices of a group, sorted; none if there is no such group."""
        return choices_of(self.folders, group)

    def groups(self) -> list[str]:
        """Names of the groups that the command chooses from, sorted."""
        return [group for group in group_names(self.folders) if not self.is_foreign(group)]

    def is_group(self, name: str) -> bool:
        """Whether the command chooses from a group of this name, which may be nested (``roi/fusion``)."""
        return bool(self.choices(name)) and not self.is_foreign(name)

    def is_foreign(self, group: str) -> bool:
        """Whether ``group`` is a shipped one that other commands choose from, as ``model`` is for evaluate."""
        return not self.given and group in foreign_groups(self.folders[-1], self.name)

    def compose(self, arguments: Sequence[str], hydras: bool = False) -> DictConfig:
        """The configuration that overrides in Hydra's grammar make; with ``hydras`` that of Hydra too.

        Raises:
            ConfigError: Hydra cannot compose it.
        """
        return compose(self.folders, self.name, arguments, hydras)

    def whole_arguments(self, argument: str) -> list[str]:
        """The arguments in Hydra's grammar that one of the command line stands for, see :meth:`whole_keys`."""
        key, equals, value = argument.partition("=")
        name = key.lstrip("+~")
        whole = self.whole_keys(name, value)
        if len(whole) > 1:
            return [f"{part}={in_quotes(text)}" for part, text in whole.items()]
        return [self.for_hydra("".join((key.removesuffix(name), *whole, equals, value)))]

    def whole_keys(self, key: str, value: Any) -> dict[str, Any]:
        """The keys and values that are meant by ``key`` with ``value``, a text of the command line or any of Python's.

        A key without its group is :func:`whole_key`'s. ``data=FOLDER`` is ``data=coco data.root=FOLDER``, with
        ``data=coco2017`` if the folder has the files of COCO 2017. The name of a choice is no folder.

        Raises:
            ConfigError: ``data`` is a path, and there is no such folder.
        """
        if not self.is_group(key):
            return {whole_key(key, self.schema): value}
        if key != "data" or not value or not isinstance(value, str | os.PathLike) or value in self.choices(key):
            return {key: value}
        text, folder = os.fspath(value), Path(value).expanduser()
        if folder.is_dir():
            layout = "coco2017" if (folder / "annotations/instances_train2017.json").is_file() else "coco"
            return {"data": layout, "data.root": text}
        if os.sep in text and "," not in text:
            raise ConfigError(f"data={text}: there is no such folder, and no choice of this name")
        return {key: value}

    def for_hydra(self, argument: str) -> str:
        """``argument``, its value in quotes where Hydra would read it as something else, or not at all.

        Hydra reads some choices as numbers, as in debug=nan, and does not know all characters that paths may have; a
        path with a comma would be a sweep, one that begins with a bracket a list. It wants two plus signs for what may
        be new, as the arguments of a class are that the command line names.
        """
        key, equals, value = argument.partition("=")
        if equals and is_inside(key.lstrip("+"), self.schema):
            key = f"++{key.lstrip('+')}"
            argument = f"{key}={value}"
        if value == "nan" and value in self.choices(key):
            return f"{key}='{value}'"
        if ("," in value or value[:1] in ("[", "{")) and os.path.exists(os.path.expanduser(value)):
            return f"{key}={quote(value)}"
        close = CLOSING.get(value[:1], "")
        if value and (not close or (close in value[1:] and not value.endswith(close))):
            try:
                parse_overrides([argument])
            except ConfigError:
                return f"{key}={quote(value)}"
        return argument

    # -------------------------------------------------------------------------------------------- checks
    def check(self, override: Override) -> None:
        """Raise :class:`ConfigError` unless the override names a group and a choice of it, or a key."""
        key = override.key_or_group
        if not self.is_group(key):
            self.check_key(key, (override.input_line or "").partition("=")[2])
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
        if self.given and not (self.has_choices or override.is_add() or key.startswith("hydra")):
            raise ConfigError(
                f"{key}={override.value()}: {self.file} is a configuration without choices; set its keys one by one "
                f"({key}.KEY=VALUE), or leave --config-name out and give all arguments."
            )
        for value in sweep_values(override):
            if value is None:
                hint = "this group is needed" if key in TUNED else f"to leave a group out, give ~{key}"
                raise ConfigError(f"{key}=null: {hint}")
            for name in value if isinstance(value, list) else [value]:
                if is_target(name):
                    raise ConfigError(class_for_group(key, self.schema))
                if not isinstance(name, dict):
                    check_choice(self.folders, key, str(name))

    def check_key(self, key: str, value: Any) -> None:
        """Raise :class:`ConfigError` that says what may be meant unless the schema has ``key``."""
        group, _, last = key.rpartition(".")
        if last == "_target_" and self.is_group(group):
            raise ConfigError(class_for_group(group, self.schema))
        if not is_known(key, self.schema):
            raise ConfigError(unknown_argument(key, value, self.schema, self.groups()))


def check_lengths(cfg: DictConfig, given: Collection[str]) -> None:
    """Raise :class:`ConfigError` if a length in steps was given that a length in epochs, of a recipe, replaces.

    Args:
        cfg: the composed configuration.
        given: keys that the user set.
    """
    for steps, epochs in EPOCHS_OF_STEPS.items():
        length = OmegaConf.select(cfg, epochs)
        if steps in given and length:
            raise ConfigError(
                f"{steps}: has no effect, as {epochs}={length:g} says the same in epochs. To count in steps give "
                f"{epochs}=0 too."
            )


def parse_overrides(arguments: Sequence[str]) -> list[Override]:
    """``key=value`` arguments in Hydra's grammar.

    Raises:
        ConfigError: one of them cannot be read.
    """
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


def sweep_values(override: Override) -> list[Any]:
    """The values that an override takes in turn: one, or those of a sweep."""
    if override.is_choice_sweep():
        return [v if not hasattr(v, "text") else v.text for v in override.sweep_iterator()]
    return [] if override.is_sweep_override() else [override.value()]


def raise_together(errors: Sequence[ConfigError]) -> None:
    """Raise the errors as one, if there are any."""
    if errors:
        raise ConfigError("\n       ".join(map(str, errors)))  # below the first one's "error: "

"""The configuration that the command line makes, from Python values: ``configure("train", {"model": "c4"})``."""

from __future__ import annotations

import numbers
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

from omegaconf import OmegaConf

from detector.config.checks import is_known, is_target, literal, pairs
from detector.config.composition import SEARCH, config_folders, default_choices, in_quotes
from detector.config.defaults import PRIMARIES
from detector.config.job import parse_job
from detector.config.overrides import Configs, check_lengths, parse_overrides, raise_together
from detector.config.unknown_argument import class_for_group
from detector.exceptions import ConfigError

T = TypeVar("T")


@overload
def configure(schema: type[T], keys: Mapping[str, Any], config_dir: str | Path = "", config_name: str = "") -> T: ...


@overload
def configure(schema: str, keys: Mapping[str, Any], config_dir: str | Path = "", config_name: str = "") -> Any: ...


def configure(schema: Any, keys: Mapping[str, Any], config_dir: str | Path = "", config_name: str = "") -> Any:
    """The configuration of a command, from the keys of its command line as Python values.

    ``configure("train", {"model": "c4", "optim.lr": 1e-3, "trainer": {"max_steps": 200}})`` is what
    ``scripts/train.py model=c4 optim.lr=1e-3 trainer.max_steps=200`` runs with. As there, a key whose name no other key
    has needs no group, and ``data`` may be a folder: ``{"lr": 1e-3, "max_steps": 200, "data": "DIR"}``. A value is
    taken as it is: a text is not read as a number or an interpolation. The command line plays no part, and nothing of
    Hydra stays behind; it may be called in an application of Hydra's, too.

    Args:
        schema: the command, as ``"train"``, or its dataclass in ``detector.config.schema``, as ``Config``, which tells
            a type checker what comes back.
        keys: groups with the name of a choice (None: leave the group out); keys, dotted or in nested dicts, with texts,
            numbers, lists, tuples, dicts, paths or None.
        config_dir: a folder with groups of your own, as ``--config-dir`` names it; "": none.
        config_name: another primary config of that folder, as ``--config-name`` names it; "": that of the command.

    Raises:
        ConfigError: no such command; a wrong group, choice, key or value; all wrong ones that can be told apart.
    """
    schema = _schema_of(schema)
    name = config_name or PRIMARIES[schema][0]
    configs = Configs(config_folders(config_dir), name, schema, given=bool(config_name))
    choices, values, wrong = {}, {}, []
    for given, content in pairs(keys, schema):
        try:
            for key, value in configs.whole_keys(given, content).items():
                if key in choices or key in values:
                    raise ConfigError(f"{key}: given twice")
                if key == SEARCH and value is not None and configs.is_group(key):
                    raise ConfigError(f"{key}={value}: a search is a --multirun of the command line")
                group = configs.is_group(key.partition("@")[0])
                if group and is_target(value):
                    raise ConfigError(class_for_group(key, schema))
                if group and not (isinstance(value, Mapping) and is_known(key, schema)):
                    choices[key] = _choice(key, value)
                else:
                    configs.check_key(key, value)
                    values[key] = literal(plain(value, key))
        except ConfigError as error:
            wrong.append(error)
    left_out = [key for key, choice in default_choices(configs.file.parent, name).items() if choice is None]
    arguments = [
        f"{key}={choice}" if choice else f"~{key}" for key, choice in choices.items() if choice or key not in left_out
    ]
    for override in parse_overrides(arguments):
        try:
            configs.check(override)
        except ConfigError as error:
            wrong.append(error)
    raise_together(wrong)
    cfg = configs.compose(arguments)
    for key, value in values.items():
        OmegaConf.update(cfg, key, value, merge=False, force_add=True)
    check_lengths(cfg, values)
    return parse_job(cfg, schema, sweep=False)


def _schema_of(given: Any) -> type:
    """The configuration dataclass of a command, or of its name.

    Raises:
        ConfigError: neither.
    """
    by_name = {primary: schema for schema, (primary, *_) in PRIMARIES.items()}
    schema: Any = by_name.get(given) if isinstance(given, str) else given
    if not any(schema is known for known in PRIMARIES):
        shown = given.__name__ if isinstance(given, type) else repr(given)
        raise ConfigError(
            f"configure({shown}, ...): must be the name of a command, one of {', '.join(sorted(by_name))}, or its "
            "class in detector.config.schema, as Config"
        )
    return schema


def plain(value: Any, key: str) -> Any:
    """``value`` as YAML could hold it: tuples as lists, paths as texts, the numbers of NumPy as Python's.

    Raises:
        ConfigError: it is, or holds, something else; names ``key``.
    """
    if value is None or isinstance(value, bool | str):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, os.PathLike):
        return plain(os.fspath(value), key)
    if isinstance(value, Mapping):
        return {str(name): plain(part, f"{key}.{name}") for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part, key) for part in value]
    raise ConfigError(f"{key}: must be a text, a number, a list, a dict or None, not {type(value).__qualname__}")


def _choice(key: str, value: Any) -> str:
    """The name of a choice in Hydra's grammar; "" for None.

    Raises:
        ConfigError: it is no name.
    """
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{key}={value!r}: must be the name of a choice, a text")
    return "" if value is None else in_quotes(value)

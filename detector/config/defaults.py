"""The values of ``configs/`` as instances of the schema: what code starts from, and what fills old checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from omegaconf import DictConfig, OmegaConf

from detector.config import schema as schemas
from detector.config.commands import configs_folder
from detector.config.composition import compose
from detector.config.schema import Config, parse, to_dict
from detector.config.stored import from_file, trust_of

T = TypeVar("T")

# Schema class -> its primary config, and the arguments that leave out what only suits a data set, or is one study.
PRIMARIES: dict[type, tuple[str, ...]] = {
    Config: ("train", "~tuning@_global_"),
    schemas.InspectConfig: ("inspect_data", "~tuning@_global_"),
    schemas.EvaluateConfig: ("evaluate",),
    schemas.CompareConfig: ("compare",),
    schemas.PredictConfig: ("predict",),
    schemas.ExportConfig: ("export",),
    schemas.IllustrateConfig: ("illustrate",),
    schemas.BenchmarkConfig: ("benchmark",),
    schemas.AblateConfig: ("ablate", "~study"),
}


def default(schema: type[T], **changes: Any) -> T:
    """An instance of a configuration class with the values of ``configs/``, as in ``default(ModelConfig, name="c4")``.

    The values are those of the default choice of each group: ``configs/model/fpn.yaml``, ``configs/roi/align.yaml`` and
    so on. What only suits a data set is not in it.

    Args:
        schema: a class of ``schema.py``.
        changes: fields that are to have other values; they are not checked.
    """
    primary = next(primary for primary in PRIMARIES if schema in _classes(primary))
    found = next(part for part in _parts(_primary_defaults(primary)) if type(part) is schema)
    return replace(copy.deepcopy(found), **changes)  # type: ignore[type-var]


def parse_partial(cfg: DictConfig | dict[str, Any], schema: type = Config) -> Any:
    """:func:`~detector.config.schema.parse` for a configuration that may lack keys: they are filled from ``configs/``.

    A checkpoint of an older version lacks those that came later.

    Raises:
        ConfigError: as ``parse``.
    """
    # Filled before interpolations are resolved: a key may refer to one that is lacking.
    plain: Any = OmegaConf.to_container(cfg) if isinstance(cfg, DictConfig) else cfg
    if schema in PRIMARIES and _lacks(plain, schema):
        filled = _over(to_dict(default(schema)), plain)
        cfg = OmegaConf.create(filled) if isinstance(cfg, DictConfig) else filled
    return parse(cfg, schema)


def configuration(data: schemas.DataConfig | Mapping[str, Any] | str | Path) -> Config:
    """What the first argument of :class:`~detector.data.datamodule.DetectionDataModule` stands for.

    Keys of the ``data`` group that are lacking have the values of ``configs/data/``: of ``coco.yaml`` for a folder and
    for another ``name`` than shapes, else of ``shapes.yaml``.

    Raises:
        ConfigError: an unknown key, or a value that is not allowed.
    """
    if isinstance(data, str | Path):
        data = {"name": "coco", "root": str(data)}
    plain = to_dict(data) if isinstance(data, schemas.DataConfig) else dict(data)
    if not plain.keys() & {field.name for field in fields(schemas.DataConfig)}:
        return parse_partial(plain, Config)
    choice = "shapes" if plain.get("name", "shapes") == "shapes" else "coco"
    shipped: Any = compose([configs_folder()], "train", [f"data={choice}"])
    OmegaConf.set_struct(shipped, False)  # wrong keys are for `parse` to name
    parsed = parse(OmegaConf.merge(shipped, {"data": plain}), Config)  # type: ignore[arg-type]
    trust = trust_of(data)
    return parsed if trust is None else from_file(parsed, trust)


@cache
def _primary_defaults(schema: type) -> Any:
    name, *arguments = PRIMARIES[schema]
    return parse(compose([configs_folder()], name, arguments), schema)


def _classes(schema: type) -> Iterator[type]:
    """A configuration class and those of its groups."""
    yield schema
    for hint in get_type_hints(schema).values():
        if is_dataclass(hint):
            yield from _classes(hint)  # type: ignore[arg-type]


def _parts(config: Any) -> Iterator[Any]:
    """A configuration and its groups."""
    yield config
    for part in (getattr(config, field.name) for field in fields(config)):
        if is_dataclass(part):
            yield from _parts(part)


def _lacks(plain: Any, schema: type) -> bool:
    """Whether a nested dict lacks a key of ``schema``."""
    return isinstance(plain, dict) and any(
        name not in plain or (is_dataclass(hint) and _lacks(plain[name], hint))  # type: ignore[arg-type]
        for name, hint in get_type_hints(schema).items()
    )


def _over(below: Any, above: Any) -> Any:
    """Two nested dicts merged; a value of ``above`` wins."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {key: _over(below.get(key, value), value) for key, value in {**below, **above}.items()}

"""The message for an argument whose key the command does not have."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, get_origin, get_type_hints

from detector.config.checks import is_known, known_keys, meant_key, unknown_key
from detector.config.commands import command
from detector.config.composition import RECIPES, SEARCH
from detector.config.schema import Config


def unknown_argument(key: str, value: Any, schema: type, groups: Sequence[str]) -> str:
    """The message for a key that is neither in ``schema`` nor one of the ``groups`` that the command chooses from."""
    of_training = is_known(key, Config) or key in (*RECIPES, "tuning")
    if of_training and is_known("set", schema):
        return f"unknown key '{key}'; settings of the study's runs are given as 'set={{{key}:{value}}}'"
    nearest = difflib.get_close_matches(key, groups, n=1, cutoff=0.7)
    if nearest and "." not in key:
        return f"unknown key '{key}'; did you mean '{nearest[0]}'?"
    known = known_keys(schema)
    if (of_training or key == SEARCH) and not meant_key(key, known):
        return f"unknown key '{key}': it is one of {command('train')}; known here: {', '.join(known)}"
    return unknown_key(key, schema)


def class_for_group(group: str, schema: type) -> str:
    """The message for a node with ``_target_`` in the place of a choice of ``group``, with the keys that take one."""
    hints: dict[str, Any] = get_type_hints(schema)
    if is_dataclass(hints.get(group)):
        ends = [f for f in fields(hints[group]) if "target" in f.metadata]
        shapes: dict[str, Any] = get_type_hints(hints[group])
        keys = [_place(f"{group}.{f.name}", shapes[f.name]) for f in ends]
    else:
        keys = [_place(f.name, hints[group]) for f in fields(schema) if f.name == group and "target" in f.metadata]
    how = f"; a class is given as {' or '.join(keys)}" if keys else ""
    return f"{group} is the name of a choice, which a class cannot replace{how}"


def _place(key: str, hint: Any) -> str:
    """How a node is given to a key: by itself, in a list or by a name of its own."""
    node = "{_target_: MODULE.CLASS, ...}"
    kind = get_origin(hint)
    return f"{key}=[{node}]" if kind is list else f"{key}.NAME={node}" if kind is dict else f"{key}={node}"

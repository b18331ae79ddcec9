"""The message for an argument whose key the command does not have."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

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

"""Configurations that come from a file, as a checkpoint: whose nodes with ``_target_`` are made if they are trusted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from detector.config.checks import is_target

T = TypeVar("T")


class StoredNode(dict[str, Any]):
    """A node from a file: :func:`detector.config.targets.build` makes it if ``trust`` allows it only.

    So it is wherever the node, or a part of the configuration with it, is handed to.
    """

    trust = ""  # as of `detector.config.targets.check_trust`; a copy that lacks it trusts nothing


def from_file(config: T, trust: str) -> T:
    """A copy of a configuration, or of a part of it, whose nodes are made if ``trust`` allows them only."""
    made: Any = config
    if is_dataclass(config) and not isinstance(config, type):
        made = replace(config, **{f.name: from_file(getattr(config, f.name), trust) for f in fields(config)})
    elif isinstance(config, Mapping):
        made = {key: from_file(value, trust) for key, value in config.items()}
        if is_target(made):
            made = StoredNode(made)
            made.trust = trust
    elif isinstance(config, list | tuple):
        made = [from_file(value, trust) for value in config]
    return made


def trust_of(config: Any) -> str | None:
    """The ``trust`` of a configuration, or of a part of it, from a file; None: no node of it is from one."""
    return next((node.trust for node in _stored(config)), None)


def _stored(config: Any) -> Iterator[StoredNode]:
    if isinstance(config, StoredNode):
        yield config
    parts = vars(config) if is_dataclass(config) else config
    if isinstance(parts, Mapping | list | tuple):
        for part in parts.values() if isinstance(parts, Mapping) else parts:
            yield from _stored(part)

"""What the fields of a configuration class may hold, and the check of keys and values against them.

The classes are in ``schema.py``; here is only how they are written and how a configuration is held against them. Every
mistake is a :class:`ConfigError` that names the key and what is known or allowed.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, field, fields, is_dataclass
from fnmatch import fnmatchcase
from typing import Any, get_args, get_origin, get_type_hints

from detector.config.synonyms import EXPLAINED, WORDS, plain
from detector.exceptions import ConfigError


def one_of(*choices: str, target: str = "") -> Any:
    """A field that may hold one of ``choices``.

    Args:
        choices: words; with a star for any part, as in ``torchvision/*``, if there is a ``target``.
        target: what a node with ``_target_`` makes that the field, of type Any, may hold too, as in "a pooler".
    """
    return field(metadata={"choices": choices, "target": target})


def targets(each: str) -> Any:
    """A field with a list of nodes with ``_target_``, or with a dict of them by name in which None stands for nothing.

    Args:
        each: what each of them makes, as in "a callback".
    """
    return field(metadata={"target": each})


def is_target(value: Any) -> bool:
    """Whether ``value`` is a node that names a class, as in ``{_target_: my_ops.Pooler, gamma: 0.1}``."""
    return isinstance(value, Mapping) and "_target_" in value


def number(low: float | None = None, high: float | None = None) -> Any:
    """A number, or a list of numbers, nested or not, within ``[low, high]``; a bound of None is no bound."""
    return field(metadata={"low": low, "high": high})


def known_keys(schema: type, prefix: str = "") -> list[str]:
    """Every dotted key of ``schema``, groups included."""
    keys = []
    hints = get_type_hints(schema)
    for f in fields(schema):
        keys.append(prefix + f.name)
        if is_dataclass(hints[f.name]):
            keys.extend(known_keys(hints[f.name], f"{prefix}{f.name}."))
    return keys


def flat(group: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested groups as one dict of dotted keys. A node with ``_target_`` is a value."""
    found: dict[str, Any] = {}
    for key, value in group.items():
        is_group = isinstance(value, dict) and not is_target(value)
        found |= flat(value, f"{prefix}{key}.") if is_group else {prefix + key: value}
    return found


def pairs(keys: Mapping[str, Any], schema: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The pairs of dotted keys and their values. A dict for a key of the schema that holds any dict is a value."""
    hints: dict[str, Any] = get_type_hints(schema)
    for key, value in keys.items():
        hint = _hint(key, hints)
        if isinstance(value, Mapping) and is_dataclass(hint):
            yield from pairs(value, hint, f"{prefix}{key}.")  # type: ignore[arg-type]
        else:
            yield f"{prefix}{key}", value


def _hint(key: str, hints: Mapping[str, Any]) -> Any:
    """The type of a key, which may be dotted; None if there is no such key."""
    name, _, rest = key.partition(".")
    hint = hints.get(name)
    if not rest:
        return hint
    return _hint(rest, get_type_hints(hint)) if is_dataclass(hint) else None


def whole_key(key: str, schema: type) -> str:
    """``GROUP.KEY`` for ``KEY`` where no other key of ``schema`` ends so, as ``optim.lr`` for ``lr``; else ``key``.

    ``KEY`` may be followed by what is inside of it, as in ``backbone._target_``.
    """
    first, dot, rest = key.partition(".")
    known = known_keys(schema)
    same = [k for k in known if k.rpartition(".")[2] == first]
    short = len(same) == 1 and same[0].count(".") == 1 and not any(k.startswith(f"{same[0]}.") for k in known)
    return f"{same[0]}{dot}{rest}" if short else key


def is_known(key: str, schema: type) -> bool:
    """Whether ``key`` is a dotted key of ``schema``, or lies in a field that holds a mapping of any keys."""
    return key in known_keys(schema) or is_inside(key, schema)


def is_inside(key: str, schema: type) -> bool:
    """Whether ``key`` lies in a field of ``schema`` that holds a mapping of any keys."""
    name, _, rest = key.partition(".")
    hint = get_type_hints(schema).get(name)
    if hint is None or not rest:
        return False
    if is_dataclass(hint):
        return is_inside(rest, hint)  # type: ignore[arg-type]
    return get_origin(hint) is dict or any(f.name == name and f.metadata.get("target") for f in fields(schema))


def check_keys(plain: Any, schema: type, prefix: str = "", root: type | None = None) -> None:
    """Raise :class:`ConfigError` for the first key of ``plain`` that ``schema`` does not have, for a single value where
    a list is wanted, which OmegaConf refuses in words of its own, and for keys of ``schema`` without a value."""
    root = root or schema
    if not isinstance(plain, dict):
        raise ConfigError(f"{prefix.rstrip('.')}: expected a group of keys, got {plain!r}")
    hints = get_type_hints(schema)
    for key, value in plain.items():
        if key not in hints:
            raise ConfigError(unknown_key(f"{prefix}{key}", root))
        if is_dataclass(hints[key]):
            check_keys(value, hints[key], f"{prefix}{key}.", root)
        elif get_origin(hints[key]) is list:
            nested = get_origin(get_args(hints[key])[0]) is list
            if not isinstance(value, list) or (nested and not all(isinstance(v, list) for v in value)):
                wanted = f"a list of lists, as in [[{value}]]" if nested else f"a list, as in [{value}]"
                raise ConfigError(f"{prefix}{key}={value}: must be {wanted}".replace("[[[", "[[").replace("]]]", "]]"))
    without = [f.name for f in fields(schema) if f.default is MISSING and f.default_factory is MISSING]
    lacking = [prefix + name for name in without if name not in plain]
    if lacking:
        raise ConfigError(f"{', '.join(lacking)}: has no value")


def unknown_key(key: str, schema: type) -> str:
    """The message for a key that does not exist: the key that is meant, or the keys of its group."""
    everything = known_keys(schema)
    group, _, last = key.rpartition(".")
    if group.rpartition(".")[2] == last and group in everything:  # model.model
        return f"unknown key '{key}'; the keys in a file of the group {group} stand alone, without '{last}:' above them"
    if meant := meant_key(key, everything):
        return f"unknown key '{key}'; did you mean '{meant}'?"
    if why := EXPLAINED.get(plain(key)):
        return f"unknown key '{key}'; {why}"
    siblings = [k for k in everything if k.rpartition(".")[0] == group]
    return f"unknown key '{key}'; known here: {', '.join(siblings or [f.name for f in fields(schema)])}"


def meant_key(key: str, known: Sequence[str]) -> str:
    """The one of ``known`` that is meant by ``key``; "" if none is near.

    The right name in the wrong group (``lr`` for ``optim.lr``), another framework's word, or a slip of the pen.
    """
    last = key.rpartition(".")[2]
    same = [k for k in known if k.rpartition(".")[2] == last]
    others = [k for k in WORDS.get(plain(key), ()) if k in known]
    slip, near = (difflib.get_close_matches(key, known, n=1, cutoff=cutoff) for cutoff in (0.9, 0.6))
    ends = {k.rpartition(".")[2]: k for k in known}
    near_ends = [ends[end] for end in difflib.get_close_matches(last, ends, n=1, cutoff=0.7)]
    if plain(key) in EXPLAINED:
        return ""
    return next(iter([*slip, *(same if len(same) == 1 else ()), *others, *near, *near_ends]), "")


def check_values(config: Any) -> None:
    """Raise :class:`ConfigError` that names every value that is not among its choices or outside its range."""
    wrong = list(_wrong_values(config, ""))
    if wrong:
        raise ConfigError("\n".join(wrong))


def _wrong_values(config: Any, prefix: str) -> Iterator[str]:
    for f in fields(config):
        value, key = getattr(config, f.name), prefix + f.name
        if is_dataclass(value):
            yield from _wrong_values(value, key + ".")
            continue
        choices, target = f.metadata.get("choices"), f.metadata.get("target")
        if target:
            yield from _wrong_targets(value, key, choices, target)
            continue
        if choices and value not in choices:
            yield f"{key}={value}: must be one of {', '.join(choices)}"
            continue
        low, high = f.metadata.get("low"), f.metadata.get("high")
        for v in _flatten(value):
            if isinstance(v, float) and not math.isfinite(v):
                yield f"{key}={value}: must be finite"
                break
            if isinstance(v, str | bool) or v is None or (low is None and high is None):
                continue
            if not (v >= (low if low is not None else v) and v <= (high if high is not None else v)):
                bounds = f"at least {low}" if high is None else f"between {low} and {high}"
                yield f"{key}={value}: must be {bounds}"
                break


def _wrong_targets(value: Any, key: str, choices: tuple[str, ...] | None, makes: str) -> Iterator[str]:
    """Messages for the value of an open end: a word or a node, or if there are no words a list or dict of nodes."""
    if choices is None and isinstance(value, list):
        for place, node in enumerate(value):
            yield from _wrong_targets(node, f"{key}[{place}]", (), makes)
    elif choices is None and isinstance(value, dict):
        for name, node in value.items():
            yield from _wrong_targets(node, f"{key}.{name}", (), makes) if node is not None else ()
    elif is_target(value):
        yield from _wrong_names(value, key)
    elif not any(isinstance(value, str) and fnmatchcase(value, choice) for choice in choices or ()):
        words = f"one of {', '.join(choices)}, or " if choices else ""
        lacks = "has no _target_, which names the class; " if isinstance(value, dict) else ""
        hint = _meant_word(value, choices or ())
        yield f"{key}={value}: {lacks}must be {words}{{_target_: MODULE.CLASS, ...}} that makes {makes}{hint}"


def _meant_word(value: Any, choices: Sequence[str]) -> str:
    """The words that ``value`` may have been meant for, as a question: spelt otherwise, or without its library."""
    found = re.fullmatch(r"(?:.*/)?([\w.-]+)", value) if isinstance(value, str) else None
    if not found:
        return ""
    same = [choice for choice in choices if plain(choice) == plain(found[1])]
    libraries = [choice.removesuffix("*") for choice in choices if choice.endswith("/*") and choice[:-2] != found[1]]
    meant = " or ".join(same or [f"{library}{found[1].lower()}" for library in libraries])
    return f"; did you mean {meant}?" if meant else ""


def _wrong_names(value: Any, key: str) -> Iterator[str]:
    """Messages for every ``_target_`` in ``value`` that is no dotted name."""
    if is_target(value) and not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", str(value["_target_"])):
        yield f"{key}._target_={value['_target_']}: must be a class with its module, as in my_ops.Pooler"
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield from _wrong_names(part, f"{key}.{name}" if isinstance(value, dict) else f"{key}[{name}]")


def with_floats(plain: dict[str, Any], schema: type) -> dict[str, Any]:
    """``plain`` with 8.0 for 8 in lists of lists of floats, where OmegaConf does not convert by itself."""
    hints, result = get_type_hints(schema), dict(plain)
    for key, value in plain.items():
        if is_dataclass(hints[key]):
            result[key] = with_floats(value, hints[key])
        elif hints[key] == list[list[float]] and isinstance(value, list):
            result[key] = [
                [float(v) if type(v) is int else v for v in row] if isinstance(row, list) else row for row in value
            ]
    return result


def literal(value: Any) -> Any:
    """``value`` as OmegaConf wants it where ``${`` is to stay ``${``, in names of folders, say; keys become texts."""
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + r"\${", value)
    if isinstance(value, dict):
        return {str(key): literal(v) for key, v in value.items()}
    return [literal(v) for v in value] if isinstance(value, list) else value


def _flatten(value: Any) -> list[Any]:
    return [x for v in value for x in _flatten(v)] if isinstance(value, list) else [value]

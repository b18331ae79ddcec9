"""The reference of all configuration keys, made from the schema and the commented YAML files; a page of the docs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import yaml

from detector.config.commands import configs_folder
from detector.config.composition import default_choices
from detector.config.defaults import PRIMARIES

HEAD = """# All configuration keys

Made from the schema and the YAML files in `configs/`. The value is that of the default choice of a group. What suits a
data set (`configs/tuning/`) and a recipe (`configs/experiment/`) come on top of it.
"""
COLUMNS = ("key", "may be", "value", "meaning")


def markdown() -> str:
    """The page in Markdown: a section for each script and each group of ``scripts/train.py``, a row for each key."""
    folder = configs_folder()
    parts = [HEAD]
    for schema, (name, *_) in PRIMARIES.items():
        parts.append(section(f"scripts/{name}.py", folder / f"{name}.yaml", schema))
        if name == "train":
            hints = get_type_hints(schema)
            parts += [
                section(f"{group}={choice}", folder / group / f"{choice}.yaml", hints[group], f"{group}.")
                for group, choice in default_choices(folder, name).items()
                if group in hints
            ]
    return "\n".join(parts)


def section(title: str, file: Path, schema: type, prefix: str = "") -> str:
    """A heading and the table of the keys in a YAML file."""
    text = file.read_text(encoding="utf-8")
    root = yaml.compose(text)
    assert isinstance(root, yaml.MappingNode)
    table = [COLUMNS, ("---",) * len(COLUMNS), *rows(root, text, schema, prefix)]
    return "\n".join([f"## {title}\n", *("| " + " | ".join(row) + " |" for row in table), ""])


def rows(node: yaml.MappingNode, text: str, schema: type, prefix: str) -> Iterator[tuple[str, ...]]:
    """Key, what it may be, value and meaning of the keys in a node of a YAML file, those of its groups below them."""
    hints = get_type_hints(schema)
    known = {field.name: field for field in fields(schema)}
    for key, value in node.value:
        if key.value not in known:  # the defaults list
            continue
        hint = hints[key.value]
        if is_dataclass(hint):
            yield from rows(value, text, hint, f"{prefix}{key.value}.")  # type: ignore[arg-type]
            continue
        written = text[value.start_mark.index : value.end_mark.index]
        meaning = comment(key, value, text.splitlines())
        cells = (f"`{prefix}{key.value}`", allowed(known[key.value], hint), f"`{written}`", meaning)
        yield tuple(cell.replace("|", "\\|") for cell in cells)


def allowed(field: Field[Any], hint: Any) -> str:
    """What a key may be, in words: ``int, at least 1``."""
    target = field.metadata.get("target")
    if choices := field.metadata.get("choices"):
        words = ", ".join(f"`{choice}`" for choice in choices)
        return f"{words}, or `_target_` of {target}" if target else words
    if target:
        return f"{'dict' if get_origin(hint) is dict else 'list'}, each `_target_` of {target}"
    kind = hint.__name__ if isinstance(hint, type) and not hasattr(hint, "__args__") else str(hint)
    kind = kind.replace("typing.", "")
    low, high = field.metadata.get("low"), field.metadata.get("high")
    if low is None and high is None:
        return kind
    return f"{kind}, at least {low}" if high is None else f"{kind}, {low} to {high}"


def comment(key: yaml.Node, value: yaml.Node, lines: list[str]) -> str:
    """The comment of a key: the lines above it, unless they begin the file, and what follows its value."""
    first = key.start_mark.line
    above: list[str] = []
    while first > 0 and lines[first - 1].strip().startswith("#"):
        first -= 1
        above.insert(0, lines[first].strip(" #"))
    end = value.end_mark
    beside = lines[end.line][end.column :].strip(" #") if end.line < len(lines) else ""
    return " ".join(filter(None, [*(above if first > 0 else []), beside]))


if __name__ == "__main__":
    print(markdown(), end="")

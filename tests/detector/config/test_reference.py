"""The page of all keys: complete, and each key says what it means."""

import re
from dataclasses import is_dataclass
from pathlib import Path
from typing import get_type_hints

from detector.config.checks import number, one_of
from detector.config.defaults import PRIMARIES
from detector.config.reference import allowed, markdown
from detector.config.schema import Config

ROWS = [re.split(r" (?<!\\\\)\| ", line.strip("| ")) for line in markdown().splitlines() if line.startswith("| `")]


def leaves(schema, prefix=""):
    """Dotted keys without the groups."""
    for name, hint in get_type_hints(schema).items():
        yield from leaves(hint, f"{prefix}{name}.") if is_dataclass(hint) else [prefix + name]


def test_every_key_of_every_script_is_there():
    listed = [row[0].strip("`") for row in ROWS]
    for schema in PRIMARIES:
        assert set(leaves(schema)) <= set(listed)
    assert len([key for key in listed if "." in key]) > 100
    assert all(listed.count(key) == 1 for key in leaves(Config) if "." in key)


def test_every_key_says_what_it_means():
    assert [row[0] for row in ROWS if len(row) != 4 or len(row[3]) < 4] == []


def test_a_row():
    """Value and comments from the file, limits from the schema; the comment of the file itself is not that of a key."""
    rows = {row[0].strip("`"): row[1:] for row in ROWS}
    assert rows["optim.lr"][:2] == ["float, at least 0", "`0.001`"]
    assert rows["optim.base_batch"][2].startswith("Images per step that lr is meant for")
    assert rows["model.rpn.box_loss"][:2] == ["`smooth_l1`, `giou`", "`smooth_l1`"]
    assert "pyramid: strides" not in rows["model.name"][2]


def test_the_page_of_the_docs_is_this_one():
    page = Path(__file__).resolve().parents[3] / "docs" / "reference.md"
    assert page.read_text(encoding="utf-8") == markdown(), "python -m detector.config.reference > docs/reference.md"


def test_what_a_key_may_be():
    assert allowed(number(0, 5), int) == "int, 0 to 5"
    assert allowed(number(1), list[list[float]]) == "list[list[float]], at least 1"
    assert allowed(one_of("a", "b"), str) == "`a`, `b`"
    assert allowed(number(), bool) == "bool"

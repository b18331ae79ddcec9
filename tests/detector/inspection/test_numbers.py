"""Numbers in other forms."""

import math

import pytest

from detector.inspection.numbers import as_box, as_number, flag_or_same


@pytest.mark.parametrize(
    ("given", "expected"),
    [("12", 12), (" -3 ", -3), ("160.0", 160), ("2.5", 2.5), ("1e3", 1000.0), (".5", 0.5), (7, 7), (None, None)],
)
def test_numbers(given, expected):
    found = as_number(given)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize("given", ["", "one", "nan", "inf", "1,5", "0x10", "1_000", "٣", "--1", "1 2"])
def test_what_is_no_number_stays(given):
    assert as_number(given) == given


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        *[(v, 0) for v in (0, "0", "0.0", "false", "False", False, "", math.nan)],
        *[(v, 1) for v in (1, "1", "true", "TRUE ", True)],
        *[(v, 0) for v in ("no", "off", "null", "None", "nan", "n")], *[(v, 1) for v in ("Yes", "on", " y", "1.0")],
        (None, None), ("perhaps", "perhaps"), (2, 2), ("2", 2), ([], []), ({}, {}), (0.5, 0.5),
    ],
)  # fmt: skip
def test_flags(given, expected):
    found = flag_or_same(given)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    "given",
    [
        ["1", 2.0, " 3", "4"],
        "[1, 2, 3, 4]",
        "1 2 3 4",
        "(1,2,3,4)",
        {"x": 1, "y": 2, "width": 3, "height": 4},
        {"h": "4", "w": "3", "y": "2", "x": "1"},
        {"left": 1, "top": 2, "width": 3, "height": 4},
        {"xmin": 1, "ymin": 2, "xmax": 4, "ymax": 6},
        {"x1": 1, "y1": 2, "x2": 4, "y2": 6},
        {"left": 1, "top": 2, "right": 4, "bottom": 6},
    ],
)
def test_boxes(given):
    assert as_box(given) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "given",
    [
        None, [], "[1, 2, 3]", "a b c d", [1, 2, 3, "x"], [1, 2, 3, math.nan], [True, 2, 3, 4], [[1, 2, 3, 4]],
        {"x": 1, "y": 2}, {"cx": 1, "cy": 2, "w": 3, "h": 4}, {"x": 1, "y": 2, "x2": 3, "h": 4}, 7,
    ],
)  # fmt: skip
def test_what_is_no_box_stays(given):
    assert as_box(given) is given

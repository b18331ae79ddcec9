"""Numbers in sentences."""

import pytest

from detector.words import counted, three_digits


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, "image"), "0 images"),
        ((1, "image"), "1 image"),
        ((1440, "image"), "1,440 images"),
        ((1, "box", "boxes"), "1 box"),
        ((2, "box", "boxes"), "2 boxes"),
        ((1.0, "epoch"), "1 epoch"),
        ((1.0004, "epoch"), "1 epoch"),
        ((12.345, "epoch"), "12.3 epochs"),
        ((1234.5, "epoch"), "1,230 epochs"),
    ],
)
def test_counted(arguments, text):
    assert counted(*arguments) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.038642, "0.0386"), (12.34, "12.3"), (999.4, "999"), (999.6, "1,000"), (1436.2, "1,440"), (38710, "38,700"),
     (0.0, "0"), (-2345.0, "-2,340")],
)  # fmt: skip
def test_numbers_have_three_digits_and_no_exponent(value, text):
    assert three_digits(value) == text

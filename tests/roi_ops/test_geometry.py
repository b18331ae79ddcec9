"""What Python and the kernels have to agree on."""

import re
from pathlib import Path

import roi_ops
from roi_ops.geometry import KIND_NUMBERS, MAX_SAMPLES

HEADER = (Path(roi_ops.__file__).parent / "include" / "roi_axis.h").read_text()


def test_numbers_of_the_kinds_are_those_of_the_header():
    (body,) = re.findall(r"enum Kind : int \{(.*?)\}", HEADER)
    numbers = {name.lower(): int(number) for name, number in re.findall(r"(\w+) = (\d+)", body)}
    assert numbers == KIND_NUMBERS


def test_most_samples():
    assert re.findall(r"MAX_SAMPLES = (\d+);", HEADER) == [str(MAX_SAMPLES)]

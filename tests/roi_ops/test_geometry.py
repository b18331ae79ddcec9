"""What Python and the kernels have to agree on."""

import re
from pathlib import Path

import pytest

import roi_ops
from roi_ops.cuda import arguments, plan, programs
from roi_ops.geometry import KIND_NUMBERS, MAX_SAMPLES

HEADER = (Path(roi_ops.__file__).parent / "include" / "roi_axis.h").read_text()


def test_numbers_of_the_kinds_are_those_of_the_header():
    (body,) = re.findall(r"enum Kind : int \{(.*?)\}", HEADER)
    numbers = {name.lower(): int(number) for name, number in re.findall(r"(\w+) = (\d+)", body)}
    assert numbers == KIND_NUMBERS


def test_most_samples():
    assert re.findall(r"MAX_SAMPLES = (\d+);", HEADER) == [str(MAX_SAMPLES)]


@pytest.mark.parametrize("name", ["TILE_CHANNELS", "TILE_W", "AXES_BYTES", "CROWD", "PARTS", "WARP", "MAX_LEVELS"])
def test_constants_of_the_plan_are_those_of_device_code(name):
    code = "".join(programs.device_code().values())
    module = arguments if name == "MAX_LEVELS" else plan
    assert re.findall(rf"constexpr int {name} = (\d+);", code) == [str(getattr(module, name))]


def test_what_the_plan_derives_is_derived_alike_in_device_code():
    code = "".join(programs.device_code().values())
    assert "constexpr int PITCH = TILE_CHANNELS + 1;" in code
    assert plan.PITCH == plan.TILE_CHANNELS + 1
    assert re.findall(r"constexpr int TILE_THREADS = (\d+);", code) == [str(plan.MAX_THREADS)]
    assert re.findall(r"constexpr int MAX_WARPS = (\d+);", code) == [str(plan.MAX_THREADS // plan.WARP)]
    (layouts,) = re.findall(r"enum Layout : int \{(.*?)\}", code)
    assert re.findall(r"(\w+) = (\d+)", layouts) == [(n.upper(), str(i)) for i, n in enumerate(plan.LAYOUTS)]

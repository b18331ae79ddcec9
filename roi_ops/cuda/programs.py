"""The kernels there are: a name, what their source is, and the compile matrix.

A kernel is a template in a ``.cuh`` file and a few lines that name an instance of it. NVRTC compiles one at a
time; the emulator (tests/cuda_emulator) compiles the same lines with g++.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import NamedTuple

import torch

from roi_ops.cuda.plan import LAYOUTS

DTYPES = {torch.float32: "float", torch.float64: "double", torch.float16: "__half", torch.bfloat16: "__nv_bfloat16"}
NAMES = {torch.float32: "f32", torch.float64: "f64", torch.float16: "f16", torch.bfloat16: "bf16"}
HEADERS = {torch.float16: "cuda_fp16.h", torch.bfloat16: "cuda_bf16.h"}

# Device code: each file after those that it includes.
FILES = (
    "platform.cuh",
    "arguments.cuh",
    "boxes.cuh",
    "tables.cuh",
    "slabs.cuh",
    "linear_forward.cuh",
    "linear_boxes.cuh",
    "max_forward.cuh",
    "max_points.cuh",
    "bins.cuh",
    "tiles.cuh",
    "staging.cuh",
    "backward_features.cuh",
)


class Kernel(NamedTuple):
    """One instance of a kernel template.

    Attributes:
        name: of the function, unique.
        file: the template's file.
        arguments: its argument struct.
        call: the instance, e.g. ``linear_forward<float, VECTOR>``.
        header: a CUDA header the storage type needs, or None.
        blocks: how many are to fit a multiprocessor at once; the compiler limits the registers for that.
    """

    name: str
    file: str
    arguments: str
    call: str
    header: str | None
    blocks: int = 3

    @property
    def source(self) -> str:
        """What is compiled."""
        include = f"#include <{self.header}>\n" if self.header else ""
        return f'{include}#include "{self.file}"\n{self.entry}'

    @property
    def entry(self) -> str:
        """The function itself."""
        return (
            f'extern "C" __global__ void __launch_bounds__(256, {self.blocks}) {self.name}(\n'
            f"    const __grid_constant__ roi::{self.arguments} arguments) {{\n"
            f"  using namespace roi;\n  roi::{self.call}(arguments);\n}}\n"
        )


@cache
def linear_forward(dtype: torch.dtype, layout: int) -> Kernel:
    """``out = A_y F A_x^T``."""
    return _by_layout("linear_forward", "linear_forward.cuh", "ForwardArguments", dtype, layout)


@cache
def linear_backward_boxes(dtype: torch.dtype, layout: int) -> Kernel:
    """Gradient of the boxes of the linear kinds."""
    return _by_layout("linear_backward_boxes", "linear_boxes.cuh", "PointArguments", dtype, layout)


@cache
def max_forward(dtype: torch.dtype, layout: int, is_pool: bool) -> Kernel:
    """Maximum and where it is."""
    name = f"{'pool' if is_pool else 'align_max'}_forward"
    kernel = _by_layout(name, "max_forward.cuh", "ForwardArguments", dtype, layout)
    call = f"max_forward<{DTYPES[dtype]}, {LAYOUTS[layout].upper()}, {str(is_pool).lower()}>"
    # A thread keeps the maximum and the position of each of its channels at 16 bytes: four of float32, for which sm_100
    # and later want more than 64 registers, or eight of half types.
    vector = LAYOUTS[layout] == "vector"
    fewer = vector and dtype.itemsize <= 4 if is_pool else 1 + (vector and dtype.itemsize == 2)
    return kernel._replace(call=call, blocks=kernel.blocks - fewer)


@cache
def max_gather(dtype: torch.dtype) -> Kernel:
    """Features at the maxima."""
    return _by_type("max_gather", "max_points.cuh", "PointArguments", dtype)


@cache
def max_backward_boxes(dtype: torch.dtype) -> Kernel:
    """Gradient of the boxes of RoIAlign's maximum."""
    return _by_type("max_backward_boxes", "max_points.cuh", "PointArguments", dtype)


@cache
def backward_features(dtype: torch.dtype, is_max: bool) -> Kernel:
    """Gradient of the features."""
    kernel = _by_type("backward_features", "backward_features.cuh", "BackwardArguments", dtype)
    name = f"{'max' if is_max else 'linear'}_{kernel.name}"
    return kernel._replace(name=name, call=f"backward_features<{DTYPES[dtype]}, {str(is_max).lower()}>")


@cache
def key_boxes(dtype: torch.dtype) -> Kernel:
    """Image and level of each RoI; ``dtype``: of the boxes."""
    return _by_type("key_boxes", "bins.cuh", "BackwardArguments", dtype)


@cache
def sort_boxes() -> Kernel:
    """RoIs in the order of their image and level."""
    return Kernel("sort_boxes", "bins.cuh", "BackwardArguments", "sort_boxes", None)


@cache
def count_tiles(dtype: torch.dtype) -> Kernel:
    """RoIs that touch each tile; ``dtype``: of the boxes."""
    return _by_type("count_tiles", "tiles.cuh", "BackwardArguments", dtype)


@cache
def give_slots() -> Kernel:
    """Which tiles are split."""
    return Kernel("give_slots", "tiles.cuh", "BackwardArguments", "give_slots", None)


@cache
def add_parts(dtype: torch.dtype) -> Kernel:
    """The parts of split tiles, added."""
    return _by_type("add_parts", "backward_features.cuh", "BackwardArguments", dtype)


def _by_layout(function: str, file: str, arguments: str, dtype: torch.dtype, layout: int) -> Kernel:
    name = f"{function}_{NAMES[dtype]}_{LAYOUTS[layout]}"
    call = f"{function}<{DTYPES[dtype]}, {LAYOUTS[layout].upper()}>"
    return Kernel(name, file, arguments, call, HEADERS.get(dtype), 2 if dtype == torch.float64 else 4)


def _by_type(function: str, file: str, arguments: str, dtype: torch.dtype) -> Kernel:
    name, blocks = f"{function}_{NAMES[dtype]}", 2 if dtype == torch.float64 else 3
    return Kernel(name, file, arguments, f"{function}<{DTYPES[dtype]}>", HEADERS.get(dtype), blocks)


def every_kernel(dtypes: tuple[torch.dtype, ...] = tuple(DTYPES)) -> list[Kernel]:
    """Every kernel that features of these dtypes can need."""
    kernels = [sort_boxes(), give_slots()]
    for dtype in dtypes:
        for layout in range(len(LAYOUTS)):
            kernels += [linear_forward(dtype, layout), linear_backward_boxes(dtype, layout)]
            kernels += [max_forward(dtype, layout, is_pool) for is_pool in (False, True)]
        kernels += [max_gather(dtype), max_backward_boxes(dtype), add_parts(dtype)]
        kernels += [backward_features(dtype, is_max) for is_max in (False, True)]
        if dtype in (torch.float32, torch.float64):
            kernels += [key_boxes(dtype), count_tiles(dtype)]
    return kernels


@cache
def device_code() -> dict[str, str]:
    """Text of every file of device code by name, the axis header among them."""
    package = resources.files("roi_ops")
    files = {name: (package / "cuda" / name).read_text() for name in FILES}
    return files | {"roi_axis.h": (package / "include" / "roi_axis.h").read_text()}

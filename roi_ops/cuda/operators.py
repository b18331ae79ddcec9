"""The seven backend functions on top of a launcher: checks, workspaces, arguments. No device is named here.

A launcher has one method, ``launch(kernel, launch, arguments)``: the driver (``driver.py``) starts the kernel on
PyTorch's current stream of the tensors' device, the emulator of the tests runs it on CPU tensors. Nothing here
waits for the device. Shapes and meanings are those of :mod:`roi_ops.reference`.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from roi_ops import maps
from roi_ops.cuda import plan, programs
from roi_ops.cuda.arguments import (
    MAX_LEVELS,
    BackwardArguments,
    ForwardArguments,
    Plan,
    PointArguments,
    fill_call,
    fill_pooled,
    pooled_form,
)
from roi_ops.cuda.compiler import CompileError
from roi_ops.geometry import LINEAR_KINDS, Geometry


class Launcher(Protocol):
    """What starts kernels."""

    def launch(self, kernel: programs.Kernel, launch: plan.Launch, arguments: ctypes.Structure, device: Any) -> None:
        """Run ``kernel`` over ``launch.grid`` blocks, after everything launched before it."""


class Pooling(NamedTuple):
    """What is pooled: maps [N, C, H_l, W_l] and boxes [K, 5]."""

    features: list[Tensor]
    boxes: Tensor
    geometry: Geometry


def supports(dtype: torch.dtype, geometry: Geometry) -> bool:
    """Whether the kernels serve such a call on maps of ``dtype``; the reference serves the others."""
    return (
        len(geometry.scales) <= MAX_LEVELS
        and max(geometry.pooled_h, geometry.pooled_w) <= plan.MAX_POOLED
        and dtype in programs.DTYPES
    )


class Operators:
    """The backend functions with a given launcher."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        # Messages of kernels that will not compile, by kernel and device: to try again takes seconds.
        self._failures: dict[tuple[str, str], str] = {}

    def linear_forward(self, features: list[Tensor], boxes: Tensor, channels_last: bool, *geom: Any) -> Tensor:
        """Pooled features, Tensor[K, C, pooled_h, pooled_w]."""
        return self._forward(features, boxes, channels_last, Geometry(*geom))[0]

    def max_forward(
        self, features: list[Tensor], boxes: Tensor, channels_last: bool, *geom: Any
    ) -> tuple[Tensor, Tensor]:
        """Largest values and, int32, where they are."""
        out, argmax = self._forward(features, boxes, channels_last, Geometry(*geom))
        assert argmax is not None
        return out, argmax

    def _forward(
        self, features: list[Tensor], boxes: Tensor, channels_last: bool, geometry: Geometry
    ) -> tuple[Tensor, Tensor | None]:
        first = features[0]
        shape = (boxes.shape[0], first.shape[1], geometry.pooled_h, geometry.pooled_w)
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        out = torch.empty(shape, dtype=first.dtype, device=first.device, memory_format=memory_format)
        is_linear = geometry.kind in LINEAR_KINDS
        argmax = None if is_linear else torch.empty_like(out, dtype=torch.int32)
        if not out.numel():
            return out, argmax
        if not first.shape[0]:
            return out.zero_(), None if argmax is None else argmax.fill_(-1)
        boxes = _boxes(boxes, first)
        arguments = ForwardArguments()
        fill_call(arguments.call, features, boxes, geometry)
        fill_pooled(arguments.out, out)
        if argmax is not None:
            fill_pooled(arguments.argmax, argmax)
        layout = plan.layout_of(features)
        direct = layout != plan.PLANAR and arguments.out.stride_c == 1
        slabs = plan.forward(features, layout, boxes.shape[0], geometry, direct)
        arguments.plan = Plan(*slabs[:-1])
        if is_linear:
            kernel = programs.linear_forward(first.dtype, layout)
        else:
            kernel = programs.max_forward(first.dtype, layout, geometry.kind == "pool")
        self._launch(kernel, slabs.launch, arguments, first.device)
        return out, argmax

    def linear_backward_boxes(self, grad: Tensor, features: list[Tensor], boxes: Tensor, *geom: Any) -> Tensor:
        """Gradient of the linear operators with respect to ``boxes``, Tensor[K, 5]."""
        geometry = Geometry(*geom)
        if not grad.numel() or not features[0].shape[0]:
            return torch.zeros_like(boxes)
        layout = plan.layout_of(features)
        slabs = plan.boxes(features, layout, boxes.shape[0], geometry)
        kernel = programs.linear_backward_boxes(features[0].dtype, layout)
        return self._points(kernel, slabs, torch.empty_like(boxes), Pooling(features, boxes, geometry), grad, None)

    def max_backward_boxes(
        self, grad: Tensor, argmax: Tensor, features: list[Tensor], boxes: Tensor, *geom: Any
    ) -> Tensor:
        """Gradient of RoIAlign's maximum with respect to ``boxes``, Tensor[K, 5]."""
        geometry = Geometry(*geom)
        if not grad.numel() or not features[0].shape[0] or geometry.kind == "pool":
            return torch.zeros_like(boxes)
        slabs = plan.points(grad.shape[1], boxes.shape[0], grad.shape[2] * grad.shape[3], split=False)
        kernel = programs.max_backward_boxes(features[0].dtype)
        return self._points(kernel, slabs, torch.empty_like(boxes), Pooling(features, boxes, geometry), grad, argmax)

    def max_gather(self, features: list[Tensor], argmax: Tensor, boxes: Tensor, *geom: Any) -> Tensor:
        """Values of ``features`` where ``argmax`` points."""
        out = torch.empty(argmax.shape, dtype=features[0].dtype, device=argmax.device)
        if not out.numel() or not features[0].shape[0]:
            return out.zero_()
        slabs = plan.points(argmax.shape[1], boxes.shape[0], argmax.shape[2] * argmax.shape[3], split=True)
        kernel = programs.max_gather(features[0].dtype)
        return self._points(kernel, slabs, out, Pooling(features, boxes, Geometry(*geom)), None, argmax)

    def _points(
        self, kernel: programs.Kernel, slabs: plan.Slabs, out: Tensor, pooled: Pooling, grad: Tensor | None,
        argmax: Tensor | None,
    ) -> Tensor:  # fmt: skip
        # Tensors made here stay referenced until the launch: after it their memory is reused in stream order.
        features, boxes, geometry = pooled
        boxes, argmax = _boxes(boxes, features[0]), _argmax(argmax)
        grad = None if grad is None else _gradient(grad, features[0])
        arguments = PointArguments(out=out.data_ptr(), plan=Plan(*slabs[:-1]))
        fill_call(arguments.call, features, boxes, geometry)
        if grad is not None:
            fill_pooled(arguments.grad, grad)
        if argmax is not None:
            fill_pooled(arguments.argmax, argmax)
        self._launch(kernel, slabs.launch, arguments, out.device)
        return out

    def linear_backward_features(
        self, grad: Tensor, boxes: Tensor, sizes: list[int], channels_last: list[bool], *geom: Any
    ) -> list[Tensor]:
        """Gradient of the linear operators with respect to each feature map."""
        return self._backward_features(grad, None, boxes, _empty_maps(grad, sizes, channels_last), Geometry(*geom))

    def max_backward_features(
        self, grad: Tensor, argmax: Tensor, boxes: Tensor, sizes: list[int], channels_last: list[bool], *geom: Any
    ) -> list[Tensor]:
        """Gradient of the maxima with respect to each feature map."""
        return self._backward_features(grad, argmax, boxes, _empty_maps(grad, sizes, channels_last), Geometry(*geom))

    def _backward_features(
        self, grad: Tensor, argmax: Tensor | None, boxes: Tensor, gradients: list[Tensor], geometry: Geometry
    ) -> list[Tensor]:
        first = gradients[0]
        if not grad.numel() or not first.shape[0]:
            return [g.zero_() for g in gradients]
        boxes, grad, argmax = _boxes(boxes, first), _gradient(grad, first), _argmax(argmax)
        tiles = plan.backward(gradients, boxes.shape[0], geometry, argmax is not None)
        if not tiles.launch.grid:
            return gradients
        arguments = BackwardArguments(slabs=tiles.slabs, chunk_bins=tiles.chunk_bins, staged=tiles.staged)
        fill_call(arguments.call, gradients, boxes, geometry)
        fill_pooled(arguments.grad, grad)
        if argmax is not None:
            fill_pooled(arguments.argmax, argmax)
        arguments.tile_begin[: len(tiles.begin)] = tiles.begin
        # Workspaces stay referenced until the last launch: after it their memory is reused in stream order.
        workspaces = [self._sort_boxes(arguments, boxes)]
        if tiles.crowd_slots:
            workspaces += self._find_crowds(tiles, arguments, boxes)
        kernel = programs.backward_features(first.dtype, argmax is not None)
        self._launch(kernel, tiles.launch, arguments, first.device)
        if tiles.crowd_slots:
            grid = first.shape[0] * tiles.crowd_slots * tiles.slabs
            launch = plan.Launch(grid, plan.MAX_THREADS, tiles.launch.shared)
            self._launch(programs.add_parts(first.dtype), launch, arguments, first.device)
        del workspaces
        return gradients

    def _sort_boxes(self, arguments: BackwardArguments, boxes: Tensor) -> Tensor:
        """Fill ``arguments.bins``; returns the memory it points to: 24 bytes a RoI and 8 an image and level."""
        call, bins, threads = arguments.call, arguments.bins, plan.MAX_THREADS
        rois, keys = call.rois, call.images * call.levels
        workspace = torch.empty(6 * rois + 2 * keys, dtype=torch.int32, device=boxes.device)
        base = workspace.data_ptr()
        bins.window, bins.key, bins.order = base, base + 16 * rois, base + 20 * rois
        bins.begin, bins.count = base + 24 * rois, base + 24 * rois + 4 * keys
        launch = plan.Launch(-(-rois // threads), threads, 0)
        self._launch(programs.key_boxes(boxes.dtype), launch, arguments, boxes.device)
        self._launch(programs.sort_boxes(), plan.Launch(keys, threads, 0), arguments, boxes.device)
        return workspace

    def _find_crowds(self, tiles: plan.Tiles, arguments: BackwardArguments, boxes: Tensor) -> list[Tensor]:
        """Fill ``arguments.crowd``; returns the memory it points to."""
        total, images, threads = tiles.begin[-1], arguments.call.images, plan.MAX_THREADS
        numbers = torch.empty(2 * total + images * tiles.crowd_slots, dtype=torch.int32, device=boxes.device)
        partial = torch.empty(tiles.partial, dtype=boxes.dtype, device=boxes.device)
        crowd, base = arguments.crowd, numbers.data_ptr()
        crowd.count, crowd.slot, crowd.tile = base, base + 4 * total, base + 8 * total
        crowd.partial, crowd.slots = partial.data_ptr(), tiles.crowd_slots
        launch = plan.Launch(-(-total * plan.WARP // threads), threads, 0)
        self._launch(programs.count_tiles(boxes.dtype), launch, arguments, boxes.device)
        self._launch(programs.give_slots(), plan.Launch(images, threads, 0), arguments, boxes.device)
        return [numbers, partial]

    def _launch(
        self, kernel: programs.Kernel, launch: plan.Launch, arguments: ctypes.Structure, device: torch.device
    ) -> None:
        """Launch a kernel.

        Raises:
            CompileError: it does not compile or load now, or did not before for a reason that lasts.
        """
        if not self._failures or (kernel.name, str(device)) not in self._failures:
            try:
                self._launcher.launch(kernel, launch, arguments, device)
                return
            except CompileError as error:
                if not error.is_lasting:
                    raise CompileError(str(error), kernel.name, str(device), is_lasting=False) from error
                self._failures[kernel.name, str(device)] = str(error)
        raise CompileError(self._failures[kernel.name, str(device)], kernel.name, str(device))


def _boxes(boxes: Tensor, feature: Tensor) -> Tensor:
    """Boxes as the kernels read them: contiguous, in the arithmetic dtype."""
    return boxes.to(torch.float64 if feature.dtype == torch.float64 else torch.float32).contiguous()


def _empty_maps(grad: Tensor, sizes: list[int], channels_last: list[bool]) -> list[Tensor]:
    return [
        torch.empty_strided(shape, maps.strides(shape, last), dtype=grad.dtype, device=grad.device)
        for shape, last in zip(maps.shapes(sizes), channels_last, strict=True)
    ]


def _gradient(grad: Tensor, feature: Tensor) -> Tensor:
    return pooled_form(grad.to(feature.dtype))


def _argmax(argmax: Tensor | None) -> Tensor | None:
    return None if argmax is None else pooled_form(argmax)

"""CUDA kernels, compiled on the user's machine for the GPU that is there by the NVRTC that PyTorch brings.

How the pieces fit, from the call down to the device:

=====================  ================================================================================
``operators.py``       the seven backend functions: outputs, workspaces, arguments; knows no device
``plan.py``            grids, block sizes, shared memory: arithmetic on sizes
``arguments.py``       the argument structs in ctypes (``arguments.cuh``)
``programs.py``        the kernels there are, by storage dtype and layout, and their source
``compiler.py``        NVRTC and the cache on disk (``ROI_OPS_CACHE``, else the user's cache folder)
``driver.py``          load and launch on PyTorch's current stream
``compile_all.py``     ``python -m roi_ops.cuda.compile_all``: the compile matrix, with no GPU
=====================  ================================================================================

and in device code, each file after those that it includes (``arguments.cuh`` has the structs of ``arguments.py``):

=========================  ============================================================================
``../include/roi_axis.h``  levels, axes, samples, rows of the pooling matrices; shared with the CPU kernels
``platform.cuh``           number types, 16-byte loads, sums over a block
``boxes.cuh``              a box's level, image and axes
``tables.cuh``             the rows of A_y and A_x of a RoI in shared memory
``slabs.cuh``              which thread does what; results pass through a tile to be written in order
``linear_forward.cuh``     ``out = A_y F A_x^T``
``linear_boxes.cuh``       its gradient with respect to the boxes
``max_forward.cuh``        RoIPool and the maximum of RoIAlign
``max_points.cuh``         what follows from their argmax
``bins.cuh``               RoIs sorted by image and level
``tiles.cuh``              tiles of the maps, and which of them so many RoIs touch that they are split
``staging.cuh``            what the gradient of the features keeps of RoIs in shared memory
``backward_features.cuh``  the gradient of the features by tiles, no atomics
=========================  ============================================================================

Between operators and driver lies one method, ``launch``. tests/cuda_emulator stands behind it too: it compiles the
same device code with g++ and runs it on CPU tensors.

No call waits for the device. All results are bitwise repeatable. More than 8 levels, bins beyond 128 an axis and
other dtypes than float16, bfloat16, float32 and float64 go to the reference backend. A first call compiles (under a
second a kernel) and may do so within the capture of a CUDA graph; workspaces come from PyTorch's allocator.
"""

from __future__ import annotations

import importlib.util
import warnings
from functools import cache
from typing import Any

import torch

from roi_ops import reference
from roi_ops.cuda.compiler import CompileError, cache_folder, compiler_version
from roi_ops.cuda.driver import Driver
from roi_ops.cuda.operators import Operators, supports
from roi_ops.forcing import forced
from roi_ops.geometry import Geometry

__all__ = [
    "CompileError",
    "available",
    "linear_backward_boxes",
    "linear_backward_features",
    "linear_forward",
    "max_backward_boxes",
    "max_backward_features",
    "max_forward",
    "max_gather",
    "status",
    "why_not",
]

# Turing: the oldest architecture the kernels are compiled for in tests.
OLDEST = (7, 5)


def why_not() -> str | None:
    """Why the kernels cannot be used here, or None if they can, as far as is known before one is compiled."""
    if torch.version.hip:
        return "PyTorch is built for ROCm"
    if not torch.cuda.is_available():
        return "no CUDA device"
    missing = [name for name in ("cuda.core", "cuda.bindings") if not _found(name)]
    if missing:
        major = (torch.version.cuda or "13").split(".")[0]  # cuda.bindings is cuda-core's extra for one CUDA version
        return f'{" and ".join(missing)} not installed: pip install "cuda-core[cu{major}]"'
    capability = torch.cuda.get_device_capability()
    if capability < OLDEST:
        return f"the device has compute capability {capability[0]}.{capability[1]}, older than {OLDEST[0]}.{OLDEST[1]}"
    return None


@cache
def available() -> bool:
    """Whether the kernels can be used here."""
    return why_not() is None


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is not there
        return False


def status() -> dict[str, Any]:
    """For the doctor: ``compiler``, and what is in the ``cache``: ``cached_kernels``, ``cached_bytes``."""
    try:
        compiler = compiler_version()
    except CompileError as error:
        compiler = str(error)
    folder = cache_folder()
    sizes = [path.stat().st_size for path in folder.glob("*.cubin")]
    return {"compiler": compiler, "cache": str(folder), "cached_kernels": len(sizes), "cached_bytes": sum(sizes)}


@cache
def _operators() -> Operators:
    return Operators(Driver())


# Failures that were warned of: (kernel, device).
_warned: set[tuple[str, str]] = set()


def _call(name: str, dtype: torch.dtype, geom: tuple, args: tuple) -> Any:
    """Call kernels, or the reference where they do not serve such a call or one of them does not compile.

    Other calls go on with kernels: a backward pass that the reference computes takes what a forward kernel left.

    Raises:
        CompileError: a kernel does not compile, and the backend is forced, or a CUDA graph is being captured: the
            reference waits for the device, which would end the capture with another message.
    """
    if supports(dtype, Geometry(*geom)):
        try:
            return getattr(_operators(), name)(*args, *geom)
        except CompileError as error:
            if forced() == "cuda" or (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()):
                raise
            failure = (error.kernel, error.device)
            if failure not in _warned:
                _warned.add(failure)
                text = f"roi_ops: the slower reference backend serves {name} on {error.device}: {error}"
                warnings.warn(text, RuntimeWarning, stacklevel=2)
    return getattr(reference, name)(*args, *geom)


def linear_forward(features, boxes, channels_last, *geom):
    """See :func:`roi_ops.reference.linear_forward`."""
    return _call("linear_forward", features[0].dtype, geom, (features, boxes, channels_last))


def linear_backward_features(grad, boxes, sizes, channels_last, *geom):
    """See :func:`roi_ops.reference.linear_backward_features`."""
    return _call("linear_backward_features", grad.dtype, geom, (grad, boxes, sizes, channels_last))


def linear_backward_boxes(grad, features, boxes, *geom):
    """See :func:`roi_ops.reference.linear_backward_boxes`."""
    return _call("linear_backward_boxes", features[0].dtype, geom, (grad, features, boxes))


def max_forward(features, boxes, channels_last, *geom):
    """See :func:`roi_ops.reference.max_forward`."""
    return _call("max_forward", features[0].dtype, geom, (features, boxes, channels_last))


def max_gather(features, argmax, boxes, *geom):
    """See :func:`roi_ops.reference.max_gather`."""
    return _call("max_gather", features[0].dtype, geom, (features, argmax, boxes))


def max_backward_features(grad, argmax, boxes, sizes, channels_last, *geom):
    """See :func:`roi_ops.reference.max_backward_features`."""
    return _call("max_backward_features", grad.dtype, geom, (grad, argmax, boxes, sizes, channels_last))


def max_backward_boxes(grad, argmax, features, boxes, *geom):
    """See :func:`roi_ops.reference.max_backward_boxes`."""
    return _call("max_backward_boxes", features[0].dtype, geom, (grad, argmax, features, boxes))

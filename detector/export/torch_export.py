"""A detector as an exported program of PyTorch, and compiled ahead of time."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from detector.exceptions import ExportError
from detector.export.failures import named_operator
from detector.export.parity import Found, Runner
from detector.export.static import StaticDetector
from detector.files import replacing
from detector.models.checkpoint import TrainedModel
from detector.models.poolers import own_pooler
from detector.words import first_line


def export_torch(
    module: TrainedModel, size: tuple[int, int], candidates: int, path: Path, compiled: Path | None
) -> dict[Path, Runner]:
    """Write an exported program, and its compiled form if a path for it is given.

    Args:
        module: the detector; it is copied.
        size: H and W of the images.
        candidates: see :class:`~detector.export.static.StaticDetector`.
        path: the file of the program.
        compiled: the file of the compiled program.

    Returns:
        For each file a function that runs it.

    Raises:
        ExportError: the compiler failed, or an operator of the user's cannot be written.
    """
    model = copy.deepcopy(module.model)
    model.roi_heads.box_roi_pool = own_pooler(model, module.config.roi)
    detector = StaticDetector(model, size, candidates).eval().requires_grad_(False)
    with torch.no_grad(), named_operator(module.config.roi, "torch_export"):
        program = torch.export.export(detector, (torch.zeros(3, *size),), strict=False)
    content = io.BytesIO()  # on a full disk PyTorch's own writer of files ends the process
    with quiet():
        torch.export.save(program, content)
    with replacing(path) as temporary:
        temporary.write_bytes(content.getbuffer())
    runners = {path: unpadded(torch.export.load(path).module())}
    if compiled is not None:
        runners[compiled] = unpadded(compile_ahead(program, compiled))
    return runners


def unpadded(program: Any) -> Runner:
    """A function that runs a :class:`~detector.export.static.StaticDetector` and returns its detections only."""

    def run(image: torch.Tensor) -> Found:
        boxes, scores, labels, count = program(image)
        n = int(count)
        return {"boxes": boxes[:n], "scores": scores[:n], "labels": labels[:n]}

    return run


@contextmanager
def quiet() -> Iterator[None]:
    """Hides what PyTorch remarks on an empty list and on views when it writes a program.

    It writes both correctly, which the comparison with the model shows.
    """
    logger = logging.getLogger("torch._export.serde.serialize")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="No complete tensor found")
            yield
    finally:
        logger.setLevel(level)


def compile_ahead(program: Any, path: Path) -> Any:
    """Compile an exported program for this machine into a package, and return it loaded.

    Raises:
        ExportError: the compiler failed; with the first line of its message.
    """
    from torch._inductor import aoti_compile_and_package, aoti_load_package

    try:
        with replacing(path) as temporary, quiet():
            aoti_compile_and_package(program, package_path=str(temporary))
        return aoti_load_package(str(path))
    except Exception as error:  # the C++ compiler and inductor raise many types
        raise ExportError(
            f"compile=true: ahead-of-time compilation failed: {first_line(error)}. It needs a C++ compiler; "
            "compile=false writes the exported program alone."
        ) from None

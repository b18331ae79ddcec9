"""What ``scripts/export.py`` does: writes a detector in another format and checks that it finds the same."""

from __future__ import annotations

import copy
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detector.config.defaults import default
from detector.config.results_folder import checkpoint_file, results_folder
from detector.config.schema import ExportConfig, ShapesConfig
from detector.data.paint import paint
from detector.data.scene import draw_objects
from detector.exceptions import ConfigError, DataError, ExportError
from detector.export.onnx_form import OnnxDetector, write_onnx
from detector.export.parity import ROUNDING, SCORE_TOLERANCE, Found, Parity, compare, unpadded
from detector.export.static import StaticDetector
from detector.files import replacing
from detector.inference.sources import ImageSource, open_source
from detector.models.checkpoint import TrainedModel, load_trained_model
from detector.models.poolers import build_pooler, pooled_strides

ENDINGS = {"onnx": ".onnx", "torch_export": ".pt2"}
Runner = Callable[[Tensor], Found]


def export(config: ExportConfig) -> tuple[list[Path], dict[str, Parity]]:
    """Export the detector of ``config.checkpoint`` and compare what each file finds with the model.

    Beside the exported file NAME, ``NAME.json`` says what goes in, what comes out, and what the labels mean.

    Returns:
        The files, and the comparison of each exported one, by its name.

    Raises:
        ConfigError: a key is missing, the format cannot express the operator, or a file is there already.
        ExportError: a library is missing, or an exported detector does not find what the model finds; its files are
            left for a look.
        DetectorError: the checkpoint or an image cannot be read.
    """
    if not config.checkpoint:
        raise ConfigError("give checkpoint=RUN (or its .ckpt file)")
    path = output_file(config)
    compiled = path.with_name(f"{path.stem}-compiled.pt2")
    description = path.with_name(f"{path.name}.json")
    files = [path, *([compiled] if config.compile else []), description]
    there = [file for file in files if file.exists()]
    if there and not config.overwrite:
        raise ConfigError(f"{there[0]} is there already; choose another output=FILE, or replace it with overwrite=true")
    if config.compile and config.format != "torch_export":
        raise ConfigError("compile=true: only format=torch_export can be compiled; onnxruntime does so as it loads")
    module = load_trained_model(config.checkpoint)
    size = image_size(config, module)
    dynamic = config.format == "onnx" and config.dynamic
    images = parity_images(config, None if dynamic else size)
    if config.format == "onnx":
        runners = {path: export_onnx(module, size, dynamic, path)}
    else:
        runners = export_torch(module, size, config.candidates, path, compiled if config.compile else None)
    parity = check(module, images, {file.name: run for file, run in runners.items()})
    content = describe(config, module, size, dynamic, parity)
    with replacing(description) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for name, result in parity.items():
        if not result.holds:
            raise ExportError(
                f"{path.with_name(name)} does not find what the model finds: {result}. The file is left "
                "for a look. Boxes whose overlap is at the threshold of suppression fall on one side or "
                "the other by their last digits, most of all in a detector that has hardly been trained; "
                "format=torch_export computes as the model does."
            )
    return files, parity


def check(module: TrainedModel, images: list[Tensor], runners: dict[str, Runner]) -> dict[str, Parity]:
    """Compare what each of ``runners`` finds with what ``module`` finds, by name.

    What is outside the tolerances is compared with the model in float64 too. ``module`` is not usable afterwards.
    """
    cuts = module.config.model.head.score_thresh, module.config.model.head.detections_per_image
    with torch.inference_mode():
        expected = [module([image])[0] for image in images]
        found = {name: [run(image) for image in images] for name, run in runners.items()}
        parity = {name: compare(expected, outputs, *cuts) for name, outputs in found.items()}
        if all(result.close for result in parity.values()):
            return parity
        module.double()
        wide = [module([image.double()])[0] for image in images]
    slack = max(SCORE_TOLERANCE, ROUNDING * compare(wide, expected, *cuts).score)
    rounding = compare(wide, expected, *cuts, slack)
    return {
        name: result if result.close else replace(compare(expected, found[name], *cuts, slack), rounding=rounding)
        for name, result in parity.items()
    }


def export_onnx(module: TrainedModel, size: tuple[int, int], dynamic: bool, path: Path) -> Runner:
    """Write ``path`` and return what runs it in onnxruntime on the CPU."""
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ExportError(
            f"format=onnx needs {error.name}, which is not installed: pip install "
            "'multiscale-rcnn[export]', or pip install onnx onnxruntime"
        ) from None
    detector = OnnxDetector(module.model, module.config.roi)
    with replacing(path) as temporary:
        write_onnx(detector, size, dynamic, temporary)
        onnx.checker.check_model(str(temporary))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> Found:
        outputs = session.run(["boxes", "scores", "labels"], {"image": image.numpy()})
        boxes, scores, labels = (torch.from_numpy(np.asarray(output)) for output in outputs)
        return {"boxes": boxes, "scores": scores, "labels": labels}

    return run


def export_torch(
    module: TrainedModel, size: tuple[int, int], candidates: int, path: Path, compiled: Path | None
) -> dict[Path, Runner]:
    """Write ``path`` and, if given, ``compiled``; returns what runs them."""
    model = copy.deepcopy(module.model)
    roi = module.config.roi
    if roi.kind.startswith("torchvision_"):  # its poolers select rows by value; ours compute the same without
        roi = replace(roi, kind=roi.kind.removeprefix("torchvision_"))
        names = model.roi_heads.box_roi_pool.featmap_names
        model.roi_heads.box_roi_pool = build_pooler(roi, names, pooled_strides(model))
    detector = StaticDetector(model, size, candidates).eval().requires_grad_(False)
    with torch.no_grad():
        program = torch.export.export(detector, (torch.zeros(3, *size),), strict=False)
    content = io.BytesIO()  # on a full disk PyTorch's own writer of files ends the process
    with quiet():
        torch.export.save(program, content)
    with replacing(path) as temporary:
        temporary.write_bytes(content.getbuffer())
    loaded = torch.export.load(path).module()
    runners: dict[Path, Runner] = {path: lambda image: unpadded(*loaded(image))}
    if compiled is not None:
        runners[compiled] = compile_ahead(program, compiled)
    return runners


@contextmanager
def quiet() -> Iterator[None]:
    """Without PyTorch's remarks on writing a program: on an empty list and on parts of one tensor, which it gets right,
    as the comparison of what was written shows."""
    logger = logging.getLogger("torch._export.serde.serialize")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="No complete tensor found")
            yield
    finally:
        logger.setLevel(level)


def compile_ahead(program: Any, path: Path) -> Runner:
    """Compile an exported program for this machine into a package, and return what runs it.

    Raises:
        ExportError: the compiler failed; the first line of its words.
    """
    from torch._inductor import aoti_compile_and_package, aoti_load_package

    try:
        with replacing(path) as temporary, quiet():
            aoti_compile_and_package(program, package_path=str(temporary))
        package = aoti_load_package(str(path))
    except Exception as error:  # of the C++ compiler, of inductor: the types are many
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ExportError(
            f"compile=true: ahead-of-time compilation failed: {reason}. It needs a C++ compiler; "
            "compile=false writes the exported program alone."
        ) from None
    return lambda image: unpadded(*package(image))


# ------------------------------------------------------------------------------------------------ inputs
def output_file(config: ExportConfig) -> Path:
    """``config.output``, or else the checkpoint's name with the format's ending, in ``export/`` of its run."""
    ending = ENDINGS[config.format]
    if config.output:
        path = Path(config.output).expanduser()
        if path.suffix != ending:
            raise ConfigError(f"output={config.output}: the name must end in {ending} for format={config.format}")
        return path
    name = checkpoint_file(config.checkpoint).stem + ending
    return results_folder("", "export", name, config.checkpoint)


def image_size(config: ExportConfig, module: TrainedModel) -> tuple[int, int]:
    """Height and width of the exported detector's images."""
    if not config.image_size:
        side = module.config.model.min_size[-1]
        return side, side
    if len(config.image_size) != 2:
        raise ConfigError(f"image_size={config.image_size}: give two numbers, [height, width]")
    return config.image_size[0], config.image_size[1]


def parity_images(config: ExportConfig, size: tuple[int, int] | None) -> list[Tensor]:
    """The images that are compared, resized to ``size`` if it is given.

    Those of ``config.images``, spread over all of them, or drawings of the built-in data set of two shapes.
    """
    if config.images:
        source, _ = open_source(config.images)
        if not isinstance(source, ImageSource):
            raise ConfigError(f"images={config.images}: give images, not a video")
        chosen = np.unique(np.linspace(0, len(source) - 1, min(config.parity_images, len(source))).astype(int))
        picked = source.select(chosen.tolist())
        images = []
        for (item,) in picked.batches(1, 0):
            if isinstance(item, DataError):
                raise DataError(f"images={config.images}: {item} Parity is checked on whole images.")
            images.append(item.image)
    else:
        images = [drawing(number)[:, : 256 - 64 * (number % 2)] for number in range(config.parity_images)]
    if size is None:
        return images
    resize = torch.nn.functional.interpolate
    return [resize(image[None], size=size, mode="bilinear", antialias=True)[0].clamp(0, 1) for image in images]


def drawing(number: int, side: int = 256) -> Tensor:
    """A picture as in the built-in data set, float32 [3, side, side]."""
    config = default(ShapesConfig, image_size=side, min_object=20, max_object=120)
    rng = np.random.default_rng(number)
    pixels = paint(rng, draw_objects(rng, config), side, config.difficulty)
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def describe(
    config: ExportConfig, module: TrainedModel, size: tuple[int, int], dynamic: bool, parity: dict[str, Parity]
) -> dict[str, Any]:
    """What ``NAME.json`` says."""
    static = config.format == "torch_export"
    count = module.config.model.head.detections_per_image if static else "N"
    outputs = {
        "boxes": f"float32 [{count}, 4], x1 y1 x2 y2 in pixels of the image",
        "scores": f"float32 [{count}]",
        "labels": f"int64 [{count}], 1..{len(module.class_names)}",
    }
    if static:
        outputs["count"] = "int64 [], rows that are detections; the others are zero"
    height, width = ("height", "width") if dynamic else size
    names = dict(enumerate(module.class_names, 1))
    categories = dict(enumerate(module.category_ids, 1))
    return {
        "format": config.format,
        "checkpoint": str(Path(config.checkpoint).expanduser().resolve()),
        "input": {"image": f"float32 [3, {height}, {width}], RGB in 0..1"},
        "outputs": outputs,
        "class_names": names,
        "category_ids": categories,
        "torch": torch.__version__,
        "parity": {name: {**asdict(result), "equal": result.holds} for name, result in parity.items()},
    }

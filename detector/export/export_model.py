"""What ``scripts/export.py`` does: it writes a detector in another format and checks that it finds the same."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detector.config.defaults import default
from detector.config.results_folder import checkpoint_file, results_folder
from detector.config.schema import ExportConfig, ShapesConfig
from detector.data.images import Reading
from detector.data.paint import paint
from detector.data.scene import draw_objects
from detector.exceptions import ConfigError, DataError, ExportError
from detector.export.onnx_export import export_onnx
from detector.export.parity import Parity, check_parity
from detector.export.torch_export import export_torch
from detector.files import write_json
from detector.inference.detector import Detector
from detector.inference.sources import ImageSource, open_source
from detector.models.checkpoint import TrainedModel, load_trained_model

ENDINGS = {"onnx": ".onnx", "torch_export": ".pt2"}


def export(config: ExportConfig) -> tuple[list[Path], dict[str, Parity]]:
    """Export the detector of ``config.checkpoint`` and compare what each file finds with the model.

    Beside the exported file NAME, ``NAME.json`` describes its inputs and outputs and names the labels.

    Returns:
        The files, and the comparison with the model for the name of each exported file.

    Raises:
        ConfigError: a key is missing, the format cannot express the operator, or a file is there already.
        ExportError: a library is missing, or an exported detector does not find what the model finds. Its files are
            kept.
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
    module = load_trained_model(config.checkpoint, trust=config.trust)
    size = image_size(config, module)
    dynamic = config.format == "onnx" and config.dynamic
    images = parity_images(config, None if dynamic else size, Detector(module).reading)
    if config.format == "onnx":
        runners = {path: export_onnx(module, size, dynamic, path)}
    else:
        runners = export_torch(module, size, config.candidates, path, compiled if config.compile else None)
    parity = check_parity(module, images, {file.name: run for file, run in runners.items()})
    content = describe(config, module, size, dynamic, parity)
    write_json(description, content)
    for name, result in parity.items():
        if not result.holds:
            raise ExportError(
                f"{path.with_name(name)} does not find what the model finds: {result}. The file is kept. "
                "Boxes whose overlap is at the threshold of suppression are kept or suppressed by their last "
                "digits, most of all in a detector that has hardly been trained; format=torch_export "
                "computes as the model does."
            )
    return files, parity


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
    """Height and width of the images of the exported detector."""
    if not config.image_size:
        side = module.config.model.min_size[-1]
        return side, side
    if len(config.image_size) != 2:
        raise ConfigError(f"image_size={config.image_size}: give two numbers, [height, width]")
    return config.image_size[0], config.image_size[1]


def parity_images(config: ExportConfig, size: tuple[int, int] | None, reading: Reading) -> list[Tensor]:
    """The images to compare detections on, read as ``reading`` says and resized to ``size`` if it is given.

    They are spread evenly over ``config.images``, or else drawn as in the built-in data set, in two formats.
    """
    if config.images:
        source = open_source(config.images, "images")
        if not isinstance(source, ImageSource):
            raise ConfigError(f"images={config.images}: give images, not a video or an animation")
        images = []
        for index in np.unique(np.linspace(0, len(source) - 1, min(config.parity_images, len(source))).astype(int)):
            image = replace(source, reading=reading)[index]
            if isinstance(image, DataError):
                raise DataError(f"images={config.images}: {image} Parity is checked on whole images.")
            images.append(image.pixels)
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
    """The content of ``NAME.json``."""
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
    return {
        "format": config.format,
        "checkpoint": str(Path(config.checkpoint).expanduser().resolve()),
        "input": {"image": f"float32 [3, {height}, {width}], RGB in 0..1"},
        "outputs": outputs,
        "class_names": dict(enumerate(module.class_names, 1)),
        "category_ids": dict(enumerate(module.category_ids, 1)),
        "torch": torch.__version__,
        "parity": {name: {**asdict(result), "equal": result.holds} for name, result in parity.items()},
    }

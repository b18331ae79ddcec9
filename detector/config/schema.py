"""The configuration schema: every key, its type, and what it may be.

The YAML files of ``configs/`` hold the values, and say beside each what it means and in which unit. :func:`parse` turns
a Hydra ``DictConfig`` or a plain nested dict into a typed :class:`Config`, and raises :class:`ConfigError` with a
message a person can act on; ``detector.config.defaults.default`` makes an instance with the values of the YAML files.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from detector.config.checks import check_keys, check_values, literal, number, one_of, targets, with_floats
from detector.config.stored import from_file, trust_of
from detector.exceptions import ConfigError


# ---------------------------------------------------------------------------------------------- model
@dataclass(kw_only=True)
class AnchorConfig:
    sizes: list[list[float]] = number(1)
    aspect_ratios: list[float] = number(0.01)


@dataclass(kw_only=True)
class RpnConfig:
    conv_depth: int = number(1, 16)
    pre_nms_top_n_train: int = number(1)
    pre_nms_top_n_test: int = number(1)
    post_nms_top_n_train: int = number(1)
    post_nms_top_n_test: int = number(1)
    nms_thresh: float = number(0, 1)
    fg_iou_thresh: float = number(0, 1)
    bg_iou_thresh: float = number(0, 1)
    batch_size_per_image: int = number(1)
    positive_fraction: float = number(0, 1)
    score_thresh: float = number(0, 1)
    box_loss: str = one_of("smooth_l1", "giou")
    box_loss_weight: float = number(0)


@dataclass(kw_only=True)
class HeadConfig:
    conv_depth: int = number(0, 16)
    conv_channels: int = number(1)
    conv_norm: str = one_of("none", "batch", "sync", "group")
    width: int = number(1)
    fg_iou_thresh: float = number(0, 1)
    bg_iou_thresh: float = number(0, 1)
    batch_size_per_image: int = number(1)
    positive_fraction: float = number(0, 1)
    score_thresh: float = number(0, 1)
    nms_thresh: float = number(0, 1)
    detections_per_image: int = number(1)
    class_agnostic: bool
    class_loss: str = one_of("cross_entropy", "focal")
    focal_gamma: float = number(0)
    box_loss: str = one_of("smooth_l1", "giou")
    box_loss_weight: float = number(0)


@dataclass(kw_only=True)
class ModelConfig:
    name: str = one_of("fpn", "c4", "c5")
    backbone: Any = one_of("mobilenet_v2", "torchvision/*", "timm/*", target="a network")
    published: str = one_of(
        "",
        "fasterrcnn_resnet50_fpn",
        "fasterrcnn_resnet50_fpn_v2",
        "fasterrcnn_mobilenet_v3_large_fpn",
        "fasterrcnn_mobilenet_v3_large_320_fpn",
    )
    weights: str
    class_map: dict[str, Any] | None
    new_classes: str = one_of("random", "mean")
    keep_classes: bool
    image_mean: list[float]
    image_std: list[float] = number(1e-6)
    norm: str = one_of("batch", "frozen", "sync", "group")
    norm_eps: float = number(-1)
    norm_momentum: float = number(-1, 1)
    trainable_stages: int = number(0, 5)
    fpn_strides: list[int] = number(1)
    fpn_channels: int = number(1)
    fpn_norm: str = one_of("none", "batch", "sync", "group")
    channels_last: bool
    min_size: list[int] = number(1)
    max_size: int = number(1)
    anchors: AnchorConfig
    rpn: RpnConfig
    head: HeadConfig


@dataclass(kw_only=True)
class RoiConfig:
    """The RoI operator between proposals and box head."""

    kind: Any = one_of("align", "pool", "prroi", "torchvision_align", "torchvision_pool", target="a pooler")
    output_size: list[int] = number(1)
    sampling_ratio: int = number(-1, 32768)  # the most that the operators take
    aligned: bool
    mode: str = one_of("avg", "max")
    canonical_scale: int = number(1)
    canonical_level: int = number(0)


# ----------------------------------------------------------------------------------------------- data
@dataclass(kw_only=True)
class ShapesConfig:
    """The built-in data set, drawn from a seed on first use and written as COCO JSON and images."""

    train_images: int = number(1)
    val_images: int = number(1)
    image_size: int = number(32)
    min_object: int = number(4)
    max_object: int = number(4)
    max_objects: int = number(1)
    max_overlap: float = number(0, 1)
    difficulty: float = number(0, 1)
    empty_fraction: float = number(0, 1)
    seed: int = number(0)


@dataclass(kw_only=True)
class DataConfig:
    name: Any = one_of("shapes", "coco", target="a data set")
    root: str
    train_annotations: str
    train_images: str
    val_annotations: str
    val_images: str
    old_val_annotations: str
    old_val_images: str
    on_invalid: str = one_of("error", "drop", "clip")
    on_error: str = one_of("stop", "skip")
    drop_categories: list[str]
    exif: str = one_of("auto", "apply", "ignore")
    white: int = number(1, 65535)
    overfit_images: int = number(0)
    batch_size: int = number(1)
    eval_batch_size: int = number(1)
    workers: int = number(0)
    aspect_grouping: bool
    keep_empty: bool
    repeat_threshold: float = number(0, 1)
    shapes: ShapesConfig


@dataclass(kw_only=True)
class AugmentConfig:
    """Training-time augmentation; a probability or strength of 0 turns a transform off."""

    mosaic: float = number(0, 1)
    copy_paste: float = number(0, 1)
    horizontal_flip: float = number(0, 1)
    vertical_flip: float = number(0, 1)
    scale_jitter: list[float] = number(0.05, 10)
    large_scale: list[float] = number(0.01, 10)
    crop_size: int = number(16)
    iou_crop: float = number(0, 1)
    photometric: float = number(0, 1)
    brightness: float = number(0, 1)
    contrast: float = number(0, 1)
    saturation: float = number(0, 1)
    hue: float = number(0, 0.5)
    transforms: list[Any] = targets("a transform")


# ------------------------------------------------------------------------------------------- training
@dataclass(kw_only=True)
class OptimConfig:
    name: Any = one_of("adamw", "sgd", target="an optimizer")
    lr: float = number(0)
    momentum: float = number(0, 1)
    weight_decay: float = number(0)
    norm_weight_decay: float = number(0)
    schedule: Any = one_of("one_cycle", "step", "cosine", "constant", target="a learning rate scheduler")
    warmup_steps: int = number(0)
    warmup_factor: float = number(0, 1)
    milestones: list[float] = number(0, 1)
    gamma: float = number(0, 1)
    final_factor: float = number(0, 1)
    clip_norm: float = number(0)
    base_batch: int = number(0)
    accumulate: int = number(1)
    backbone_lr: float = number(0)
    stage_decay: float = number(0, 1)
    backbone_frozen_steps: int = number(0)
    ema: float = number(0, 1)


@dataclass(kw_only=True)
class TrainerConfig:
    accelerator: str = one_of("auto", "cpu", "gpu")
    devices: int = number(1)
    num_nodes: int = number(1)
    precision: str = one_of("32", "16-mixed", "bf16-mixed")
    max_steps: int = number(1)
    epochs: float = number(0)
    eval_every: int = number(0)
    eval_epochs: float = number(0)
    checkpoint_every: int = number(0)
    checkpoint_minutes: float = number(0)
    log_every: int = number(1)
    early_stopping: int = number(0)
    threads: int = number(0)
    deterministic: bool
    limit_eval_images: int = number(0)
    val_loss: bool
    profile_steps: int = number(0)
    detect_anomaly: bool
    progress_bar: bool


@dataclass(kw_only=True)
class LoggerConfig:
    csv: bool
    tensorboard: bool
    sheet_images: int = number(0)
    extra: dict[str, Any] = targets("a logger")


@dataclass(kw_only=True)
class Config:
    """The whole configuration of a training run."""

    seed: int = number(0, 2**32 - 1)
    run_dir: str
    compile: str = one_of("none", "backbone")
    resume: str
    model: ModelConfig
    roi: RoiConfig
    data: DataConfig
    augment: AugmentConfig
    optim: OptimConfig
    trainer: TrainerConfig
    logger: LoggerConfig
    callbacks: dict[str, Any] = targets("a callback")


@dataclass(kw_only=True)
class InspectConfig(Config):
    """The configuration of ``scripts/inspect_data.py``: that of a training on the data, and what to do with them."""

    fix: str
    fix_val: str
    force: bool
    output_dir: str
    overwrite: bool
    open_images: bool
    sheet_images: int = number(0)
    progress_bar: bool


@dataclass(kw_only=True)
class EvaluateConfig:
    """The configuration of ``scripts/evaluate.py``: a checkpoint, or annotations and predictions."""

    checkpoint: str
    trust: str
    annotations: str
    predictions: str
    images: str
    drop_categories: list[str]
    on_invalid: str = one_of("as_trained", "error", "drop")
    output_dir: str
    overwrite: bool
    accelerator: str = one_of("auto", "cpu", "gpu")
    batch_size: int = number(1)
    workers: int = number(0)
    score_thresh: float = number(-1, 1)
    evaluator: str = one_of("builtin", "pycocotools")
    max_detections: int = number(0)
    resamples: int = number(0)
    report: bool
    gallery_images: int = number(0)
    sheet_images: int = number(0)
    progress_bar: bool


@dataclass(kw_only=True)
class CompareConfig:
    """The configuration of ``scripts/compare.py``."""

    runs: list[str]
    annotations: str
    images: str
    drop_categories: list[str]
    output_dir: str
    overwrite: bool
    max_detections: int = number(0)
    resamples: int = number(0)
    sheet_images: int = number(0)
    progress_bar: bool


@dataclass(kw_only=True)
class PredictConfig:
    """The configuration of ``scripts/predict.py``: what a detector finds in images or a video."""

    checkpoint: str
    trust: str
    source: str
    annotations: str
    output_dir: str
    overwrite: bool
    accelerator: str = one_of("auto", "cpu", "gpu")
    batch_size: int = number(1)
    workers: int = number(0)
    score_thresh: float = number(-1, 1)
    draw: bool
    draw_thresh: float = number(0, 1)
    progress_bar: bool


@dataclass(kw_only=True)
class ExportConfig:
    """The configuration of ``scripts/export.py``: a detector in another format."""

    checkpoint: str
    trust: str
    format: str = one_of("onnx", "torch_export")
    output: str
    overwrite: bool
    image_size: list[int] = number(16)
    dynamic: bool
    candidates: int = number(1)
    compile: bool
    images: str
    parity_images: int = number(1)


@dataclass(kw_only=True)
class IllustrateConfig:
    """The configuration of ``scripts/illustrate.py``: figures of the RoI operators on a small map or on an image."""

    figure: str = one_of("all", "operators", "bin", "matrices", "motion", "image")
    output_dir: str
    box: list[float]
    stride: int = number(1)
    map_size: list[int] = number(4, 32)
    output_size: list[int] = number(1, 16)
    sampling_ratio: int = number(1, 16)
    seed: int = number(0)
    image: str
    image_box: list[float]
    image_stride: int = number(1)
    checkpoint: str
    trust: str
    image_bins: int = number(1, 32)


@dataclass(kw_only=True)
class BenchmarkConfig:
    """The configuration of ``scripts/benchmark.py``."""

    suite: str = one_of("roi_ops", "cuda_bytes", "step", "model", "detectors", "retrofit", "train", "data")
    device: str = one_of("cpu", "cuda")
    repeats: int = number(1)
    threads: int = number(0)
    quick: bool
    output_dir: str
    checkpoint: str
    trust: str
    image_size: list[int] = number(64)
    annotations: str
    images: str
    progress_bar: bool


@dataclass(kw_only=True)
class StudyConfig:
    """A study: every combination of the factors' levels is trained with every seed."""

    name: str
    title: str
    factors: dict[str, Any]
    seeds: list[int] = number(0, 2**32 - 1)
    common: dict[str, Any]
    compare: str
    baseline: str
    metrics: list[str]
    effects: list[float] = number(1e-3, 100)
    published: list[dict[str, Any]]
    keep_weights: bool
    diagnostics: bool
    hours: float = number(0)


@dataclass(kw_only=True)
class AblateConfig:
    """The configuration of ``scripts/ablate.py``."""

    study: StudyConfig
    study_dir: str
    action: str = one_of("run", "plan", "report")
    set: dict[str, Any] | None
    cell: str


# ------------------------------------------------------------------------------------------ functions
def case(value: Any, table: dict[str, Any]) -> Any:
    """The OmegaConf resolver ``${detector.case:${model.name},{fpn:[128],else:[256]}}``: what a table of a YAML file
    says of a value of another key, or of the first of several values that is in it; a node with ``_target_`` is
    something else."""
    table = {str(key): row for key, row in table.items()}
    words = [str(word) for word in (value if isinstance(value, list | ListConfig) else [value])]
    word = next((word for word in words if word in table), words[-1])
    found = table[word] if word in table or "else" not in table else table["else"]
    return OmegaConf.create(found) if isinstance(found, list) else found  # OmegaConf.resolve wants its own lists


OmegaConf.register_new_resolver("detector.case", case, replace=True)


def parse(cfg: DictConfig | dict[str, Any], schema: type = Config) -> Any:
    """Check ``cfg`` against ``schema`` and return an instance of it.

    Args:
        cfg: composed Hydra configuration or nested dict, with every key of ``schema``.
        schema: one of the configuration dataclasses of this module.

    Raises:
        ConfigError: an unknown key (with the nearest known one), a key without a value, a value of the wrong type,
            outside its range or not among its choices.
    """
    try:
        plain: Any = OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else cfg
        check_keys(plain, schema)
        resolved = literal(with_floats(plain, schema))
        parsed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), resolved))
    except OmegaConfBaseException as error:
        key = error.full_key or ""
        raise ConfigError(f"{key}: {str(error).splitlines()[0]}") from None
    check_values(parsed)
    trust = trust_of(plain)
    return parsed if trust is None else from_file(parsed, trust)


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as a nested dict of plain values, as checkpoints and ``config.yaml`` hold it."""
    return _plain(asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list) else value

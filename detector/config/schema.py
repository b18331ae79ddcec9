"""The configuration schema: every key, its type, its unit, and what it may be.

Values stand in the YAML files of ``configs/`` only. :func:`parse` turns a Hydra ``DictConfig`` or a plain nested dict
into a typed :class:`Config`, and raises :class:`ConfigError` with a message a person can act on;
``detector.config.composition.default`` makes an instance with the values of the YAML files.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from detector.config.checks import check_keys, check_values, literal, number, one_of, with_floats
from detector.exceptions import ConfigError


# ---------------------------------------------------------------------------------------------- model
@dataclass(kw_only=True)
class AnchorConfig:
    # Anchor side lengths in pixels of the resized image, one list for each feature map.
    sizes: list[list[float]] = number(1)
    # Height / width of the anchors, used at every location of every map.
    aspect_ratios: list[float] = number(0.01)


@dataclass(kw_only=True)
class RpnConfig:
    pre_nms_top_n_train: int = number(1)  # proposals kept before NMS, each level and image
    pre_nms_top_n_test: int = number(1)
    post_nms_top_n_train: int = number(1)  # proposals kept after NMS, each image
    post_nms_top_n_test: int = number(1)
    nms_thresh: float = number(0, 1)  # IoU above which the lower-scored proposal is dropped
    fg_iou_thresh: float = number(0, 1)  # an anchor is positive from this IoU
    bg_iou_thresh: float = number(0, 1)  # and negative below this one
    batch_size_per_image: int = number(1)  # anchors sampled for the loss
    positive_fraction: float = number(0, 1)
    score_thresh: float = number(0, 1)  # proposals below this objectness are dropped
    box_loss: str = one_of("smooth_l1", "giou")
    box_loss_weight: float = number(0)  # factor of the box loss


@dataclass(kw_only=True)
class HeadConfig:
    width: int = number(1)  # units of the two fully connected layers of the box head
    fg_iou_thresh: float = number(0, 1)  # a proposal is an object from this IoU
    bg_iou_thresh: float = number(0, 1)  # and background below this one
    batch_size_per_image: int = number(1)  # proposals sampled for the loss
    positive_fraction: float = number(0, 1)
    score_thresh: float = number(0, 1)  # detections below this score are dropped
    nms_thresh: float = number(0, 1)
    detections_per_image: int = number(1)
    class_agnostic: bool  # one box a proposal for all classes instead of one for each
    class_loss: str = one_of("cross_entropy", "focal")
    focal_gamma: float = number(0)  # focal: exponent that plays down what is easy
    box_loss: str = one_of("smooth_l1", "giou")
    box_loss_weight: float = number(0)  # factor of the box loss


@dataclass(kw_only=True)
class ModelConfig:
    name: str = one_of("fpn", "c4", "c5")
    # "none", a name of torchvision.models.MobileNet_V2_Weights, or a path of a state-dict file.
    weights: str
    image_mean: list[float]  # of the 0..1 RGB image
    image_std: list[float] = number(1e-6)
    norm: str = one_of("batch", "frozen", "sync", "group")
    # MobileNetV2 stages that train, counted from the last: 0 freezes all, 5 trains everything.
    trainable_stages: int = number(0, 5)
    fpn_strides: list[int] = number(1)  # maps of model=fpn, pixels of the resized image
    fpn_channels: int = number(1)  # only used by model=fpn
    fpn_norm: str = one_of("none", "batch", "sync", "group")  # norm after each layer of the pyramid
    channels_last: bool  # memory format of the network and its activations
    # Short side of the resized image in pixels; several values: one is drawn a batch of training, the
    # last is used in evaluation.
    min_size: list[int] = number(1)
    max_size: int = number(1)  # limit of the long side, wins over min_size
    anchors: AnchorConfig
    rpn: RpnConfig
    head: HeadConfig


@dataclass(kw_only=True)
class RoiConfig:
    """The RoI operator between proposals and box head."""

    kind: str = one_of("align", "pool", "prroi", "torchvision_align", "torchvision_pool")
    output_size: list[int] = number(1)  # bins: height, width
    sampling_ratio: int = number(-1)  # samples a bin and axis; 0 or -1: adaptive, one a pixel
    aligned: bool  # shift by half a pixel and no minimum box size (align only)
    mode: str = one_of("avg", "max")  # how a bin's samples become one value (align only)
    canonical_scale: int = number(1)  # a box of this side (pixels) is pooled from ...
    canonical_level: int = number(0)  # ... level 4, stride 16 (FPN paper, equation 1)


# ----------------------------------------------------------------------------------------------- data
@dataclass(kw_only=True)
class ShapesConfig:
    """The built-in data set, drawn from a seed on first use and written as COCO JSON and images."""

    train_images: int = number(1)
    val_images: int = number(1)
    image_size: int = number(32)  # side of the square images, pixels
    min_object: int = number(4)  # smallest and largest side of an object, pixels
    max_object: int = number(4)
    max_objects: int = number(1)  # objects an image: uniform in 1..max_objects
    max_overlap: float = number(0, 1)  # largest IoU between two objects: higher is more crowded
    difficulty: float = number(0, 1)  # 0: plain background, strong contrast; 1: clutter, weak contrast
    empty_fraction: float = number(0, 1)  # share of images without an object
    seed: int = number(0)


@dataclass(kw_only=True)
class DataConfig:
    name: str = one_of("shapes", "coco")
    # Folder that the paths below are relative to; for shapes, where the drawn data set is kept.
    root: str
    train_annotations: str  # COCO JSON
    train_images: str  # folder of the file names in the JSON
    val_annotations: str
    val_images: str
    on_invalid: str = one_of("error", "drop", "clip")  # what to do with an unusable annotation
    on_error: str = one_of("stop", "skip")  # what to do when training meets an image that cannot be read
    overfit_images: int = number(0)  # train and evaluate on the first so many training images with boxes; 0: off
    batch_size: int = number(1)  # images a step and process
    eval_batch_size: int = number(1)
    workers: int = number(0)  # loader processes, each process
    aspect_grouping: bool  # batches of images of like shape, less padding
    keep_empty: bool  # train on images without an object too
    # Images with a class that fewer than this share of the images show are repeated in each pass; 0: none are.
    repeat_threshold: float = number(0, 1)
    shapes: ShapesConfig


@dataclass(kw_only=True)
class AugmentConfig:
    """Training-time augmentation; a probability or strength of 0 turns a transform off."""

    mosaic: float = number(0, 1)  # probability that the image becomes one of four, each with its objects
    copy_paste: float = number(0, 1)  # probability that objects of another image are pasted into it
    horizontal_flip: float = number(0, 1)  # probability
    vertical_flip: float = number(0, 1)  # probability
    # Images are resized by a factor drawn from [low, high] and cropped or padded to their old size.
    scale_jitter: list[float] = number(0.05, 10)
    # Large-scale jitter: images are resized to a factor from [low, high] of what fits into a square of crop_size and
    # cropped or padded to that square.
    large_scale: list[float] = number(0.01, 10)
    crop_size: int = number(16)  # pixels; used by large_scale
    iou_crop: float = number(0, 1)  # probability of an SSD-style random crop
    photometric: float = number(0, 1)  # probability of brightness, contrast, saturation, hue jitter
    brightness: float = number(0, 1)  # relative strengths, used when photometric > 0
    contrast: float = number(0, 1)
    saturation: float = number(0, 1)
    hue: float = number(0, 0.5)


# ------------------------------------------------------------------------------------------- training
@dataclass(kw_only=True)
class OptimConfig:
    name: str = one_of("adamw", "sgd")
    lr: float = number(0)  # peak learning rate
    momentum: float = number(0, 1)  # sgd only
    weight_decay: float = number(0)
    norm_weight_decay: float = number(0)  # for normalisation parameters and biases
    schedule: str = one_of("one_cycle", "step", "cosine", "constant")
    warmup_steps: int = number(0)  # optimiser steps in which the rate rises
    warmup_factor: float = number(0, 1)  # learning rate at step 0, relative to lr
    milestones: list[float] = number(0, 1)  # step: share of all steps at which lr drops
    gamma: float = number(0, 1)  # step: factor of each drop
    final_factor: float = number(0, 1)  # cosine and one_cycle: last learning rate, relative to lr
    clip_norm: float = number(0)  # largest gradient norm; 0: no clipping
    # lr is meant for so many images a step and is scaled to those of the run, all processes and accumulated batches
    # together: in proportion for sgd, with the square root for adamw; 0: lr is taken as it is.
    base_batch: int = number(0)
    accumulate: int = number(1)  # batches whose gradients are added up for one step
    backbone_lr: float = number(0)  # learning rate of the backbone, relative to lr
    stage_decay: float = number(0, 1)  # factor of the rate from each backbone stage to the one before it
    backbone_frozen_steps: int = number(0)  # optimiser steps in which the backbone's weights stay as they are
    ema: float = number(0, 1)  # decay a step of the averaged weights that are evaluated and kept; 0: none


@dataclass(kw_only=True)
class TrainerConfig:
    accelerator: str = one_of("auto", "cpu", "gpu")
    devices: int = number(1)  # processes on this machine, one a device
    num_nodes: int = number(1)
    precision: str = one_of("32", "16-mixed", "bf16-mixed")
    max_steps: int = number(1)  # optimiser steps of the whole training
    epochs: float = number(0)  # passes over the training images, which set max_steps; 0: max_steps as it is
    eval_every: int = number(0)  # optimiser steps between evaluations; 0: only at the end
    eval_epochs: float = number(0)  # passes between evaluations, which set eval_every; 0: eval_every as it is
    checkpoint_every: int = number(0)  # optimiser steps between checkpoints; 0: only when evaluating
    checkpoint_minutes: float = number(0)  # minutes after which a checkpoint is due besides; 0: never
    log_every: int = number(1)  # optimiser steps between rows of the logs
    early_stopping: int = number(0)  # evaluations without a better AP that end the run; 0: never
    threads: int = number(0)  # CPU threads of PyTorch; 0: PyTorch's own choice
    deterministic: bool  # same seed, same numbers (bitwise on the CPU)
    limit_eval_images: int = number(0)  # evaluate on the first N images only; 0: all
    profile_steps: int = number(0)  # batches of which profile.txt says where their time went; 0: none
    detect_anomaly: bool  # stop where a gradient becomes NaN, and say which operation it was; slow
    progress_bar: bool


@dataclass(kw_only=True)
class LoggerConfig:
    csv: bool
    tensorboard: bool
    wandb: bool
    wandb_project: str
    sheet_images: int = number(0)  # validation images on the sheet of predictions


@dataclass(kw_only=True)
class Config:
    """The whole configuration of a training run."""

    seed: int = number(0, 2**32 - 1)  # initial weights, data order, augmentation
    run_dir: str  # where everything about this run is written
    compile: str = one_of("none", "backbone")  # what of the network torch.compile makes faster code of
    resume: str  # "": start anew; "auto": the last checkpoint in run_dir; else a checkpoint file
    model: ModelConfig
    roi: RoiConfig
    data: DataConfig
    augment: AugmentConfig
    optim: OptimConfig
    trainer: TrainerConfig
    logger: LoggerConfig


@dataclass(kw_only=True)
class InspectConfig(Config):
    """The configuration of ``scripts/inspect_data.py``: that of a training on the data, and what to do with them."""

    fix: str  # write a cleaned copy of the training annotations to this JSON file
    fix_val: str  # the same for the validation annotations
    output_dir: str  # folder for the results
    overwrite: bool  # replace results of another inspection in output_dir, and cleaned copies
    open_images: bool  # look into every image file: damage, sizes, duplicates
    sheet_images: int = number(0)  # training images on the sheet of augmentations
    progress_bar: bool


@dataclass(kw_only=True)
class EvaluateConfig:
    """The configuration of ``scripts/evaluate.py``: a checkpoint, or annotations and predictions."""

    checkpoint: str  # checkpoint to score, on its own validation set unless `annotations` is given
    annotations: str  # COCO annotation JSON
    predictions: str  # COCO results JSON
    images: str  # image folder of `annotations`: to run a checkpoint on, or for the report's pictures
    output_dir: str  # folder for the results; "": evaluate/CHECKPOINT in its run, or runs/evaluate/PREDICTIONS
    overwrite: bool  # replace results of another evaluation in output_dir
    accelerator: str = one_of("auto", "cpu", "gpu")
    batch_size: int = number(1)
    workers: int = number(0)
    score_thresh: float = number(-1, 1)  # overrides the model's; -1: as trained
    evaluator: str = one_of("builtin", "pycocotools")
    max_detections: int = number(0)  # counted for each image and class; 0: the model's limit, at least COCO's 100
    resamples: int = number(0)  # of the images, for the 95 % intervals; 0: no intervals
    report: bool  # write report.html, plots and CSV files too
    gallery_images: int = number(0)  # images for each kind of error in the report
    sheet_images: int = number(0)
    progress_bar: bool


@dataclass(kw_only=True)
class CompareConfig:
    """The configuration of ``scripts/compare.py``."""

    # Baseline first: folders of runs or of evaluations, or COCO results JSON files.
    runs: list[str]
    annotations: str  # COCO annotation JSON; "": the one that the runs were evaluated on
    images: str  # folder of its images, for pictures; "": the one that the runs were evaluated on
    output_dir: str  # folder for the results; "": runs/compare/A-B
    overwrite: bool  # replace results of another comparison in output_dir
    max_detections: int = number(0)  # counted for each image and class; 0: the models' limit, at least COCO's 100
    resamples: int = number(0)  # of the images, for the 95 % intervals; 0: no intervals
    sheet_images: int = number(0)  # images that changed most, drawn side by side
    progress_bar: bool


@dataclass(kw_only=True)
class PredictConfig:
    """The configuration of ``scripts/predict.py``: what a detector finds in images or a video."""

    checkpoint: str  # checkpoint or folder of a run
    source: str  # image, folder of images, glob pattern in quotes, or video
    annotations: str  # COCO JSON whose image and category ids are taken over; source is then its image folder
    output_dir: str  # folder for the results; "": predict/SOURCE in the run of the checkpoint
    overwrite: bool  # replace earlier results in output_dir
    accelerator: str = one_of("auto", "cpu", "gpu")
    batch_size: int = number(1)
    workers: int = number(0)
    score_thresh: float = number(-1, 1)  # overrides the model's; -1: as trained
    draw: bool  # draw the boxes into copies of the images
    draw_thresh: float = number(0, 1)  # draw boxes from this score on
    progress_bar: bool


@dataclass(kw_only=True)
class ExportConfig:
    """The configuration of ``scripts/export.py``: a detector in another format."""

    checkpoint: str  # checkpoint or folder of a run
    format: str = one_of("onnx", "torch_export")
    output: str  # the file, .onnx or .pt2; "": export/CHECKPOINT with that ending, in its run
    overwrite: bool
    # Height, width of the images in pixels; []: a square of the model's min_size. The model resizes as it was trained.
    image_size: list[int] = number(16)
    dynamic: bool  # onnx: images of any size; false: of image_size only, as torch_export always
    candidates: int = number(1)  # torch_export: best boxes of all classes that suppression looks at
    compile: bool  # torch_export: also compile ahead of time, for this machine
    images: str  # images that parity is checked on: file, folder or pattern; "": drawn ones
    parity_images: int = number(1)  # how many of them


@dataclass(kw_only=True)
class IllustrateConfig:
    """The configuration of ``scripts/illustrate.py``: figures of the RoI operators on a small map or on an image."""

    figure: str = one_of("all", "operators", "bin", "matrices", "motion", "image")
    output_dir: str  # folder for the pictures; "": runs/illustrate, or illustrate/ in the run of the checkpoint
    box: list[float]  # x1, y1, x2, y2 of the drawn box, pixels of the image
    stride: int = number(1)  # pixels of the image a cell of the map
    map_size: list[int] = number(4, 32)  # height, width of the map of numbers, cells
    output_size: list[int] = number(1, 16)  # bins: height, width
    sampling_ratio: int = number(1, 16)  # samples a bin and axis
    seed: int = number(0)  # of the map of numbers
    image: str  # figure=image: an image file; "": one is drawn
    image_box: list[float]  # x1, y1, x2, y2 in that image, pixels; []: its middle
    image_stride: int = number(1)  # cells of its map: squares of so many pixels
    checkpoint: str  # figure=image: a detector whose feature map is drawn instead of the brightness
    image_bins: int = number(1, 32)  # bins an axis


@dataclass(kw_only=True)
class BenchmarkConfig:
    """The configuration of ``scripts/benchmark.py``."""

    suite: str = one_of("roi_ops", "cuda_bytes", "step", "model", "retrofit", "train", "data")
    device: str = one_of("cpu", "cuda")
    repeats: int = number(1)  # timed runs of each call
    threads: int = number(0)  # CPU threads; 0: PyTorch's own choice
    quick: bool  # small workloads and three runs, to see that everything works
    output_dir: str  # folder for the results; "": runs/benchmark, or benchmark/ in the run of the checkpoint
    checkpoint: str  # suite=model: the detector to measure; "": an untrained one
    image_size: list[int] = number(64)  # suites model and retrofit: height, width of the images, pixels
    annotations: str  # suite=data: COCO annotation JSON; "": drawn images
    images: str  # suite=data: image folder of the annotations
    progress_bar: bool


@dataclass(kw_only=True)
class StudyConfig:
    """A study: every combination of the factors' levels is trained with every seed."""

    name: str  # of the folder of its results
    title: str  # heading of the report; "": the name
    # Factor -> levels. A factor is a group or key of configs/train.yaml with a list of its values, or any word with a
    # mapping: level -> groups and keys with their values.
    factors: dict[str, Any]
    seeds: list[int] = number(0, 2**32 - 1)
    common: dict[str, Any]  # groups and keys with their values, the same in every run
    compare: str  # factor whose levels are compared, within each combination of the others; "": the first
    baseline: str  # its level that the others are compared with; "": the first
    metrics: list[str]  # numbers of which differences are judged
    effects: list[float] = number(1e-3, 100)  # points of AP to say how many seeds for
    published: list[dict[str, Any]]  # rows of a table shown beside the results
    keep_weights: bool  # of every run; the diagnostics need them
    diagnostics: bool  # look at the operators themselves when all runs are done
    hours: float = number(0)  # no run starts later than this after the command; 0: no limit


@dataclass(kw_only=True)
class AblateConfig:
    """The configuration of ``scripts/ablate.py``."""

    study: StudyConfig
    study_dir: str  # where everything about this study is written
    action: str = one_of("run", "plan", "report")
    set: dict[str, Any] | None  # more groups and keys for every run, stronger than those of the study
    cell: str  # do only the run of this name


# ------------------------------------------------------------------------------------------ functions
def case(value: str, table: dict[str, Any]) -> Any:
    """The OmegaConf resolver ``${case:${model.name},{fpn:[128],else:[256]}}``: what a table of a YAML file says of a
    value of another key."""
    found = table[value] if value in table or "else" not in table else table["else"]
    return OmegaConf.create(found) if isinstance(found, list) else found  # OmegaConf.resolve wants its own lists


OmegaConf.register_new_resolver("case", case, replace=True)


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
    return parsed


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as a nested dict of plain values, as checkpoints and ``config.yaml`` hold it."""
    return asdict(config)

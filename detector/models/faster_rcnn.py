"""From the configuration to a torchvision ``FasterRCNN``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN

from detector.config.schema import ModelConfig, RoiConfig
from detector.exceptions import ConfigError
from detector.models.backbone import anchor_strides, build_backbone
from detector.models.catalogue import check_network
from detector.models.heads import BoxPredictor, RegionHeads, build_box_head
from detector.models.poolers import build_pooler, feature_maps
from detector.models.preprocessing import DetectionTransform
from detector.models.proposals import (
    FullPrecisionAnchorGenerator,
    FullPrecisionRPNHead,
    ProposalNetwork,
    anchor_sides,
)
from detector.models.seeding import seeded
from detector.words import counted


def build_model(config: ModelConfig, roi: RoiConfig, num_classes: int) -> FasterRCNN:
    """Build the detector. The initial weights are drawn from PyTorch's generator and do not depend on ``roi``.

    Args:
        config: backbone, anchors, heads and thresholds.
        roi: the operator between proposals and box head.
        num_classes: number of classes, background included.

    Returns:
        A model in training mode that takes a list of images (float32 [3, H, W], 0..1) and, in training, a list
        of targets (``boxes`` float32 [N, 4] xyxy pixels, ``labels`` int64 [N]); it returns a dict of losses in
        training and a list of ``boxes``, ``labels``, ``scores`` in evaluation.

    Raises:
        ConfigError: keys that do not go together.
        WeightsError: the initial weights cannot be read or do not fit.
    """
    check_model(config)
    backbone = build_backbone(config)
    head, sizes, ratios = config.head, config.anchors.sizes, config.anchors.aspect_ratios
    anchors = FullPrecisionAnchorGenerator(tuple(map(tuple, sizes)), (tuple(ratios),) * len(sizes))
    pooler = build_pooler(roi, backbone.pooled_names, backbone.pooled_strides, backbone.out_channels)
    rpn_head = FullPrecisionRPNHead(backbone.out_channels, anchors.num_anchors_per_location()[0], config.rpn.conv_depth)
    box_head = build_box_head(head, (backbone.out_channels, *pooler.output_size))
    predictor = BoxPredictor(head.width, num_classes, head.class_agnostic)
    model = FasterRCNN(
        backbone.module,
        rpn_anchor_generator=anchors,
        rpn_head=rpn_head,
        box_roi_pool=pooler,
        box_head=box_head,
        box_predictor=predictor,
    )
    model.rpn = ProposalNetwork(config.rpn, anchors, rpn_head)
    model.roi_heads = RegionHeads(head, pooler, box_head, predictor)
    model.transform = DetectionTransform(
        config.min_size, config.max_size, backbone.image_mean, backbone.image_std, channels_last=config.channels_last
    )
    return model.to(memory_format=torch.channels_last) if config.channels_last else model


def check_model(config: ModelConfig) -> None:
    """Refuse values that do not go together, and those that torchvision would accept and misread.

    Raises:
        ConfigError: naming the key.
    """
    check_network(config.backbone)
    for key in ("image_mean", "image_std"):
        value = getattr(config, key)
        if len(value) not in (0, 3):
            raise ConfigError(
                f"model.{key}={value}: give three numbers, for red, green and blue, or none ([]) for the network's own"
            )
    if not config.min_size:
        raise ConfigError("model.min_size=[]: give at least one short side in pixels")
    for name, part in (("rpn", config.rpn), ("head", config.head)):
        if part.bg_iou_thresh > part.fg_iou_thresh:
            raise ConfigError(
                f"model.{name}.bg_iou_thresh={part.bg_iou_thresh}: must not be above "
                f"model.{name}.fg_iou_thresh={part.fg_iou_thresh}"
            )
    sizes, strides = config.anchors.sizes, anchor_strides(config)
    if len(sizes) != len(strides):
        raise ConfigError(
            f"model.anchors.sizes={sizes}: model={config.name} has {counted(len(strides), 'feature map')} "
            f"(strides {', '.join(map(str, strides))}), give one list of sizes for each, not {len(sizes)}"
        )
    if len({len(of_map) for of_map in sizes}) != 1 or not sizes[0]:  # all maps share one RPN head
        raise ConfigError(f"model.anchors.sizes={sizes}: every map needs the same number of sizes, at least one")
    ratios = config.anchors.aspect_ratios
    if not ratios:
        raise ConfigError("model.anchors.aspect_ratios=[]: give at least one")
    for size in sorted({size for of_map in sizes for size in of_map}):
        if (anchor_sides([size], ratios) == 0).any():
            raise ConfigError(
                f"model.anchors.sizes={sizes}: an anchor of size {size:g} has no area with one of "
                f"model.anchors.aspect_ratios={ratios}, as half its sides are rounded to whole pixels; give larger ones"
            )


def check_eval_mode(module: nn.Module) -> None:
    """Raise :class:`RuntimeError` in training mode, in which torchvision's model wants targets and returns losses."""
    if module.training:
        raise RuntimeError("the module is in training mode: call .eval() before asking for detections")


def detect_with_losses(
    model: FasterRCNN, images: list[Tensor], targets: list[dict[str, Tensor]], seed: int
) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
    """The detections of ``images``, and the losses that training would have on them; the backbone runs once for both.

    Images are resized, and norm layers used, as in evaluation. The number of proposals, and the sample of anchors and
    regions that the losses are taken of, are those of training; the sample depends on ``seed`` only.

    Args:
        model: of :func:`build_model`, in eval mode.
        images: float32 [3, H, W] each, 0..1.
        targets: for each image ``boxes`` float32 [N, 4] xyxy pixels and ``labels`` int64 [N].
        seed: of the sample.

    Returns:
        What ``model(images)`` returns in evaluation, and the dict of scalars that it returns in training.
    """
    check_eval_mode(model)
    original = [(image.shape[-2], image.shape[-1]) for image in images]
    batch, scaled = model.transform(images, targets)
    features, sizes = feature_maps(model, batch.tensors), batch.image_sizes
    rpn, heads = model.rpn, model.roi_heads
    predicted = rpn.predict(batch, features)
    found, _ = heads(features, rpn.propose(predicted, sizes), sizes)
    with _as_in_training(rpn, heads), seeded(seed, batch.tensors.device):
        proposal_losses = rpn.losses(predicted, scaled)  # first, as in training: the draws are the same
        _, losses = heads(features, rpn.propose(predicted, sizes), sizes, scaled)
    return model.transform.postprocess(found, sizes, original), losses | proposal_losses


@contextmanager
def _as_in_training(*modules: nn.Module) -> Iterator[None]:
    """Inside the block the modules themselves, but not the layers in them, are in training mode."""
    for module in modules:
        module.training = True
    try:
        yield
    finally:
        for module in modules:
            module.training = False

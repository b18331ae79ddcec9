"""A Faster R-CNN of fixed shapes: one image of one size in, a padded list of detections and their number out.

It computes what torchvision's detector computes in evaluation, with masks where torchvision selects rows. Proposals and
detections are the best N, padded, and suppression is :func:`detector.export.nms.suppress`. The whole detector is one
graph without a guard on values, as ``torch.export`` and ahead-of-time compilers need.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.models.detection.transform import resize_boxes
from torchvision.ops import clip_boxes_to_image

from detector.export.nms import suppress
from detector.models.poolers import feature_maps

SMALLEST = 1e-2  # sides of detections, pixels, as in torchvision's RoIHeads


class StaticDetector(nn.Module):
    """``detector(image)`` for ``image`` float32 [3, H, W] in 0..1, with H and W fixed.

    Returns ``boxes`` [D, 4] xyxy in pixels of the image, ``scores`` [D], ``labels`` int64 [D] and ``count`` int64 []:
    the first ``count`` rows are detections, highest score first, the others are zero. D is the model's
    ``detections_per_image``.

    Args:
        model: torchvision's ``FasterRCNN`` in eval mode, with a pooler of ``roi_ops``.
        size: H and W.
        candidates: number of boxes that enter suppression, the best of all classes. Detections are those of the model
            if no more boxes than this pass the score threshold, or if ``detections_per_image`` of them are kept.
    """

    anchors: Tensor

    def __init__(self, model: FasterRCNN, size: tuple[int, int], candidates: int = 2000):
        super().__init__()
        self.model = model
        self.size = size
        with torch.no_grad():
            example = torch.zeros(3, *size, device=next(model.parameters()).device)
            images, _ = model.transform([example])
            features = feature_maps(model, images.tensors)
            anchors = model.rpn.anchor_generator(images, list(features.values()))[0]
        self.resized: tuple[int, int] = images.image_sizes[0]
        self.padded = tuple(images.tensors.shape[-2:])
        per_cell = model.rpn.anchor_generator.num_anchors_per_location()
        self.anchor_counts = [n * f.shape[2] * f.shape[3] for n, f in zip(per_cell, features.values(), strict=True)]
        self.register_buffer("anchors", anchors, persistent=False)
        self.candidates = candidates

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See the class."""
        features = feature_maps(self.model, self._batch(image))
        proposals, there = self._proposals(features)
        return self._detections(features, proposals, there)

    def _batch(self, image: Tensor) -> Tensor:
        transform = self.model.transform
        x = transform.normalize(image)
        x = functional.interpolate(x[None], size=self.resized, mode="bilinear", align_corners=False)
        bottom, right = (p - r for p, r in zip(self.padded, self.resized, strict=True))
        x = functional.pad(x, (0, right, 0, bottom))
        return x.contiguous(memory_format=torch.channels_last) if transform.channels_last else x

    def _proposals(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The best boxes of the region proposal network, [P, 4] padded with zeros, and a mask [P] of the real ones."""
        rpn = self.model.rpn
        objectness, offsets = concat_box_prediction_layers(*rpn.head(list(features.values())))
        boxes = rpn.box_coder.decode(offsets.detach(), [self.anchors]).reshape(-1, 4)
        kept = [min(rpn.pre_nms_top_n(), n) for n in self.anchor_counts]
        rows_boxes, rows_scores = [], []
        for logits, level, k in zip(
            objectness.flatten().split(self.anchor_counts), boxes.split(self.anchor_counts), kept, strict=True
        ):
            best, index = logits.topk(k)
            rows_boxes.append(functional.pad(level[index], (0, 0, 0, max(kept) - k)))
            rows_scores.append(functional.pad(torch.sigmoid(best), (0, max(kept) - k), value=-1.0))
        level_boxes = clip_boxes_to_image(torch.stack(rows_boxes), self.resized)
        scores = torch.stack(rows_scores)
        valid = (scores >= max(rpn.score_thresh, 0.0)) & _large(level_boxes, rpn.min_size)
        keep = suppress(level_boxes, None, valid, rpn.nms_thresh).flatten()
        order = torch.where(keep, scores.flatten(), -1.0).sort(descending=True, stable=True).indices
        order = order[: rpn.post_nms_top_n()]
        there = keep[order]
        return torch.where(there[:, None], level_boxes.reshape(-1, 4)[order], 0.0), there

    def _detections(
        self, features: dict[str, Tensor], proposals: Tensor, there: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        heads = self.model.roi_heads
        pooled = heads.box_roi_pool(features, [proposals], [self.resized])
        logits, offsets = heads.box_predictor(heads.box_head(pooled))
        boxes = heads.box_coder.decode(offsets, [proposals])
        classes = logits.shape[1] - 1
        boxes = clip_boxes_to_image(boxes, self.resized)[:, 1:].reshape(-1, 4)
        scores = functional.softmax(logits, -1)[:, 1:]
        labels = torch.arange(1, classes + 1, device=boxes.device).expand(len(proposals), -1).reshape(-1)
        valid = ((scores > heads.score_thresh) & there[:, None]).reshape(-1) & _large(boxes, SMALLEST)
        scores = torch.where(valid, scores.reshape(-1), -1.0)
        order = scores.sort(descending=True, stable=True).indices[: self.candidates]
        boxes, scores, labels, valid = boxes[order], scores[order], labels[order], valid[order]
        keep = suppress(boxes[None], labels[None], valid[None], heads.nms_thresh)[0]
        first = (~keep).to(torch.int8).sort(stable=True).indices[: heads.detections_per_img]
        there = keep[first]
        boxes = resize_boxes(boxes[first], list(self.resized), list(self.size))
        missing = heads.detections_per_img - len(first)  # a small image may have fewer candidates
        boxes = functional.pad(torch.where(there[:, None], boxes, 0.0), (0, 0, 0, missing))
        scores, labels = (functional.pad(torch.where(there, t[first], 0), (0, missing)) for t in (scores, labels))
        return boxes, scores, labels, there.sum()


def _large(boxes: Tensor, side: float) -> Tensor:
    """Whether width and height are at least ``side``, bool [...] for [..., 4]."""
    return ((boxes[..., 2:] - boxes[..., :2]) >= side).all(-1)

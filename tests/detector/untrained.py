"""The checkpoint of a tiny detector that has learned nothing."""

import torch

from detector.config.defaults import parse_partial
from detector.config.schema import Config, to_dict
from detector.models.faster_rcnn import build_model

NAMES, IDS = ["cat", "dog"], [3, 7]


def make_content():
    """The content of the checkpoint; all scores are about a third, so every image gets detections."""
    config = parse_partial(
        {
            "model": {
                "weights": "none",
                "norm": "frozen",
                "fpn_channels": 8,
                "min_size": [64],
                "max_size": 96,
                "head": {"width": 16, "detections_per_image": 5},
                "rpn": {"post_nms_top_n_test": 20},
            },
            "data": {"name": "coco", "val_annotations": "val.json", "val_images": "images"},
        },
        Config,
    )
    torch.manual_seed(0)
    model = build_model(config.model, config.roi, num_classes=len(NAMES) + 1)
    return {
        "state_dict": model.state_dict(prefix="model."),
        "global_step": 1,
        "hyper_parameters": {"config": to_dict(config), "class_names": NAMES, "category_ids": IDS},
    }

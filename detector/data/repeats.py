"""Repeat-factor sampling: images that show a rare class are seen more often."""

from __future__ import annotations

import numpy as np

from detector.data.coco import DetectionDataset


def repeat_factors(dataset: DetectionDataset, threshold: float) -> np.ndarray:
    """How often each image is to be seen per epoch, on average: float64 [M], at least 1.

    A class that the share f of the images shows has the factor max(1, sqrt(threshold / f)); an image has the largest
    factor of its classes (Gupta et al., LVIS: A Dataset for Large Vocabulary Instance Segmentation, 2019, section 5).

    Args:
        dataset: crowd regions count only if it keeps them.
        threshold: 0 to 1; 0 repeats no image.
    """
    images = len(dataset)
    image_of = np.repeat(np.arange(images), np.diff(dataset.table.first))[dataset.used]
    shown = np.zeros((images, len(dataset.class_names) + 1), dtype=bool)
    shown[image_of, dataset.table.labels[dataset.used]] = True
    share = shown.mean(axis=0)
    wanted = np.sqrt(threshold / np.where(share > 0, share, 1)).clip(min=1)
    return np.where(shown, wanted, 1.0).max(axis=1)

"""Data: COCO files and the built-in shapes, augmentation, the order of training, and the data module."""

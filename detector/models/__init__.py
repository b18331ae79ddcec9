"""Detectors: backbones, RoI poolers, and the torchvision ``FasterRCNN`` put together from them."""

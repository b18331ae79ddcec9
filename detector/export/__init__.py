"""Detectors in other formats: ONNX, and PyTorch's exported programs with fixed shapes."""

"""Runs the package's CUDA device code on the CPU, behind the launch interface of the driver."""

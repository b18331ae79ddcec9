"""Random draws that depend on named numbers only, and that leave the sequence of the draws around them alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

CPU = torch.device("cpu")


def seed_of(*numbers: int) -> int:
    """A 64-bit seed for the draws that belong to ``numbers``, any whole numbers."""
    low, high = np.random.SeedSequence([number % 2**64 for number in numbers]).generate_state(2)
    return int(low) | int(high) << 32


@contextmanager
def seeded(seed: int, device: torch.device = CPU) -> Iterator[None]:
    """Inside the block PyTorch's generator of the CPU, and that of ``device`` if it is a GPU, start from ``seed``.

    Afterwards they go on where they were. Not ``torch.manual_seed``: that reseeds the generators of all devices.
    """
    generators = [torch.default_generator]
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])
    states = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)

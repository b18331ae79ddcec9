"""What belongs to a whole process and not to one piece of work in it."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def process_restored() -> Iterator[None]:
    """Afterwards the environment, the random numbers of Python, NumPy and PyTorch, and cuDNN's search for the fastest
    kernels are as they were before the block. The random numbers of a GPU are so only if it was in use before.

    Lightning sets all of them for a run, and each pass over a data set draws a seed for its loader processes.
    """
    environment, drawn, drawn_numpy = dict(os.environ), random.getstate(), np.random.get_state()
    # A GPU that nobody has used yet is left alone: asking it takes its memory.
    drawn_gpu = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    drawn_torch, search = torch.get_rng_state(), torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        random.setstate(drawn)
        np.random.set_state(drawn_numpy)
        torch.set_rng_state(drawn_torch)
        torch.cuda.set_rng_state_all(drawn_gpu)
        torch.backends.cudnn.benchmark = search

"""Tensors as the numbers that a shard holds, and back: numpy has no bf16, so that is held as bits."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def as_numbers(tensor: Tensor) -> np.ndarray:
    """A tensor's numbers, on the CPU; bf16 as uint16 bits.

    >>> as_numbers(torch.tensor([1.0, 2.0], dtype=torch.bfloat16)).tolist()
    [16256, 16384]
    """
    found = tensor.detach().cpu().contiguous()
    return (found.view(torch.uint16) if found.dtype == torch.bfloat16 else found).numpy()


def as_tensor(numbers: np.ndarray, dtype: str) -> Tensor:
    """Numbers of a kind as a tensor on the same memory.

    >>> as_tensor(np.array([16256, 16384], np.uint16), "bfloat16").tolist()
    [1.0, 2.0]
    """
    found = torch.from_numpy(numbers)
    return found.view(torch.bfloat16) if dtype == "bfloat16" else found

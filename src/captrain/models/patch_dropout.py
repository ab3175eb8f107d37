"""Fewer image vectors to look at while learning: a text half that can't count on any one of them overfits later."""

from __future__ import annotations

import torch
from torch import Tensor


def drop_patches(vectors: Tensor, share: float) -> Tensor:
    """A random subset of each image's vectors, in their order (PatchDropout, Liu et al. 2023).

    Args:
        vectors: (I, N, D), with their positions already in them. share: of the N that go, drawn anew for each image.

    Returns:
        Vectors (I, K, D); K is N * (1 - share), rounded, and at least 1.

    >>> drop_patches(torch.arange(8.0).view(1, 8, 1), 0.25).shape
    torch.Size([1, 6, 1])
    """
    images, count, width = vectors.shape
    kept = max(1, round(count * (1 - share)))
    chosen = torch.rand(images, count, device=vectors.device).topk(kept, dim=1).indices.sort(dim=1).values
    return vectors.gather(1, chosen[..., None].expand(-1, -1, width))

"""A picture seen twice, as it is and mirrored: the mean of both is a steadier view of it."""

from __future__ import annotations

import torch
from torch import Tensor

from captrain.errors import ModelError

BEFORE_THE_GRID = (0, 1, 2, 5)
"""Vectors that encoders put before those of their grid: none, a class token, DeiT's two, DINOv2's with registers."""


def mean_with_mirrored(plain: Tensor, mirrored: Tensor, height: int, width: int) -> Tensor:
    """The mean of what an encoder makes of pictures and of their mirror images, both (I, N, D), the latter turned back.

    Args:
        height, width: of the pictures.

    Raises `ModelError` where the vectors are neither one an image nor a grid.
    """
    return (plain + turned_back(mirrored, height, width)) / 2


def turned_back(vectors: Tensor, height: int, width: int) -> Tensor:
    """Vectors (I, N, D) of mirrored pictures in the places that their cells have in the pictures themselves.

    >>> turned_back(torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8]).view(1, 9, 1), 32, 32).flatten().tolist()
    [2, 1, 0, 5, 4, 3, 8, 7, 6]
    >>> turned_back(torch.tensor([9, 0, 1, 2, 3]).view(1, 5, 1), 32, 32).flatten().tolist()
    [9, 1, 0, 3, 2]
    """
    if vectors.shape[1] == 1:
        return vectors
    before, rows, columns = grid_of(vectors.shape[1], height, width)
    grid = vectors[:, before:].unflatten(1, (rows, columns)).flip(2).flatten(1, 2)
    return torch.cat([vectors[:, :before], grid], 1)


def grid_of(count: int, height: int, width: int) -> tuple[int, int, int]:
    """How many of `count` vectors stand before the grid, and its rows and columns, for pictures of height x width.

    >>> grid_of(577, 384, 384), grid_of(49, 224, 224), grid_of(32, 224, 448)
    ((1, 24, 24), (0, 7, 7), (0, 4, 8))
    """
    for before in BEFORE_THE_GRID:
        rows = round(((count - before) * height / width) ** 0.5)
        if rows and (count - before) % rows == 0 and abs((count - before) // rows * height / width - rows) < 0.5:
            return before, rows, (count - before) // rows
    raise ModelError(
        f"mirror: the encoder's {count} vectors are no grid over the picture, so they can't be turned back"
    )

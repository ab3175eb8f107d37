"""From images to written captions, a batch at a time. The same code serves training, evaluation and captioning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from captrain.features.images import Images
from captrain.models.captioner import Captioner, Written
from captrain.models.decoding import Decoding


def features_of(captioner: Captioner, images: Images, positions: Sequence[int]) -> Tensor:
    """Features of images by position, from where they are kept, or computed now."""
    row = images.rows(positions)
    if "features" in row:
        return row["features"].to(captioner.device)
    captioner.eval()
    with torch.no_grad():
        return captioner.encode(row["pixels"].to(captioner.device)).to(captioner.precision)


def write_captions(
    captioner: Captioner, images: Images, positions: Sequence[int], batch_size: int, decoding: Decoding | None = None
) -> Iterator[tuple[int, Written]]:
    """A caption for each position, in order."""
    for start in range(0, len(positions), batch_size):
        batch = positions[start : start + batch_size]
        yield from zip(batch, captioner.generate(features_of(captioner, images, batch), decoding), strict=True)

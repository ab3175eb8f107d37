"""From images to written captions, a batch at a time. The same code serves training, evaluation and captioning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from captrain.features.images import Images
from captrain.models.captioner import Captioner
from captrain.models.decoding import Decoding, Written
from captrain.models.mirror import mean_with_mirrored
from captrain.models.modes import evaluating


def features_of(captioner: Captioner, images: Images, positions: Sequence[int], mirror: bool = False) -> Tensor:
    """Features of images by position, from where they are kept, or computed now.

    With `mirror` the mean of theirs and of their mirror images', where these are kept too or can be computed.
    """
    row = images.rows(positions)
    if "features" not in row:
        with evaluating(captioner), torch.no_grad():
            return captioner.encode(row["pixels"].to(captioner.device), mirror).to(captioner.precision)
    features = row["features"].to(captioner.device)
    mirrored = images.mirrored(positions) if mirror else None
    if mirrored is None:
        return features
    spec = captioner.image_spec
    return mean_with_mirrored(features, mirrored.to(captioner.device), spec.height, spec.width)


def write_captions(
    captioner: Captioner, images: Images, positions: Sequence[int], batch_size: int, decoding: Decoding | None = None
) -> Iterator[tuple[int, Written]]:
    """A caption for each position, in order."""
    for start in range(0, len(positions), batch_size):
        batch = positions[start : start + batch_size]
        features = features_of(captioner, images, batch, (decoding or captioner.decoding).mirror)
        yield from zip(batch, captioner.generate(features, decoding), strict=True)

"""How tests against plain transformers hand over the same pictures to both sides."""

from __future__ import annotations

import torch
from torch import Tensor

from captrain.models.contract import CaptionerModel


def features_of(captioner: CaptionerModel, pixels: Tensor) -> Tensor:
    """What the captioner makes of pictures (I, height, width, 3), uint8."""
    with torch.no_grad():
        return captioner.encode(pixels)


def normalised(captioner: CaptionerModel, pixels: Tensor) -> Tensor:
    """Pictures (I, height, width, 3), uint8, as a plain model takes them; written out, and not by captrain's own code."""
    return (pixels.permute(0, 3, 1, 2) / 255 - captioner.mean) / captioner.std

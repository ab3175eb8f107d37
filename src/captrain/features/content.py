"""What a kept array depends on, as keys: encoder weights, image preparation, picture content."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

from captrain.data.images import ImageSpec
from captrain.features.encoder import vectors_read
from captrain.models.captioner import Captioner
from captrain.models.parts import plain_name

PREPARATION_VERSION = 2
"""Raised whenever `data.images.prepare` makes other pixels than before, so that nothing older is taken for new."""


def pixels_key(spec: ImageSpec) -> str:
    """A key of everything that decides a picture's pixels (mean and deviation are applied later, by the encoder)."""
    pixels = {name: value for name, value in spec.to_dict().items() if name not in ("mean", "std")}
    text = json.dumps([PREPARATION_VERSION, pixels], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def features_key(captioner: Captioner) -> str:
    """A key of everything that decides what is kept: weights, statistics, preparation, arithmetic, and which vectors are read."""
    stated: list[Any] = [PREPARATION_VERSION, captioner.image_spec.to_dict(), str(captioner.precision)]
    if (vectors := vectors_read(captioner)) != "all":  # unsaid, so that keys from before this was told apart stay good
        stated.append(vectors)
    digest = hashlib.blake2b(json.dumps(stated, sort_keys=True).encode(), digest_size=16)
    for name, module in captioner.part_modules("vision"):
        for kind, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            digest.update(f"{plain_name(name)}.{kind} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

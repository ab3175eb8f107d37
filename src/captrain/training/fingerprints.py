"""Short marks of a run's data and of its frozen weights: whether what lies under the same names is still the same."""

from __future__ import annotations

import zlib

import numpy as np
import torch

from captrain.data.samples import keys_of
from captrain.features.images import Images, KeptImages
from captrain.features.stored import StoredImages
from captrain.models.captioner import Captioner
from captrain.training.rows import TokenizedCaptions
from captrain.training.stored import StoredCaptions

LOOKED_AT = 64  # numbers of each weight


def fingerprints(
    captioner: Captioner, images: dict[str, Images], captions: dict[str, TokenizedCaptions]
) -> dict[str, str]:
    """Marks of the model and of each split."""
    return {"model": of_model(captioner)} | {name: of_split(images[name], captions[name]) for name in images}


def of_split(images: Images, captions: TokenizedCaptions) -> str:
    """A mark of a split's pictures and captions, in their order.

    Kept pictures are told by their content, others by their ids. Captions of a large store are not read for it.
    """
    mark = len(images)
    if isinstance(images, KeptImages):
        mark = zlib.crc32("".join(images.keys).encode(), mark)
    elif not isinstance(images, StoredImages):
        mark = zlib.crc32(np.ascontiguousarray(keys_of(images.samples)).tobytes(), mark)
    if not isinstance(captions, StoredCaptions):
        for numbers in (captions.tokens, captions.caption_ends, captions.sample_ends):
            mark = zlib.crc32(np.ascontiguousarray(numbers).tobytes(), mark)
    return f"{mark:08x}"


def of_model(captioner: Captioner) -> str:
    """A mark of the weights that do not learn, by the first numbers of each; those that learn are in the checkpoints.

    The numbers are rounded to bf16, in which frozen weights may lie: the mark is the same on all devices.
    """
    frozen = {name: weight for name, weight in captioner.named_parameters() if not weight.requires_grad}
    mark = zlib.crc32(repr([(name, tuple(weight.shape)) for name, weight in frozen.items()]).encode())
    if frozen:
        first = [weight.detach().reshape(-1)[:LOOKED_AT].to("cpu", torch.bfloat16) for weight in frozen.values()]
        mark = zlib.crc32(torch.cat(first).view(torch.uint8).numpy().data, mark)
    return f"{mark:08x}"

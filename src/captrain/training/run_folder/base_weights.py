"""A run's `base/`: the weights that its adapter needs and that exist nowhere else.

These are newly joined captioners, adapters merged into their base, and bases that travel with an adapter that continues
learning. A base with its own place (a checkpoint's folder, a hub id) stays there, and the adapter names it.

Fingerprints of a run's data and of its frozen weights tell whether files of the same name still have the same content.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch

from captrain.data.samples import keys_of
from captrain.errors import RunError
from captrain.features.stored_images import StoredImages
from captrain.features.training_images import CachedImages, Images
from captrain.models.adapters import name_base, travels_with
from captrain.models.checkpoint.folder import model_folder
from captrain.models.contract import CaptionerModel
from captrain.training.captions import StoredCaptions, TokenizedCaptions
from captrain.training.run_folder.folder import RunFolder
from captrain.training.run_folder.place import told

MADE_OF = ("model.model", "model.continue_adapter", "model.encoder", "model.decoder", "model.join")
"""The settings that define a base."""


def check_base(run: RunFolder, changes: Sequence[str]) -> None:
    """Raise `RunError` if settings would change the base of a run that has one: its saved weights belong to the old base.

    Args:
        changes: of settings, as `RunFolder.claim` gives them.
    """
    if run.base.is_dir() and (made := [change for change in changes if change.split(" ")[0] in MADE_OF]):
        raise RunError(
            f"{run.path}: its weights belong to {run.base}, which was made of another model ({told(made)}); "
            "choose another folder, or --overwrite to begin from scratch"
        )


def keep_travelling_base(captioner: CaptionerModel, source: str, base: str | None, run: RunFolder) -> None:
    """Copy the base beside an adapter, and make the adapter name the copy: the other run or archive may be deleted."""
    with model_folder(source) as folder:
        if base is None and (beside := travels_with(folder)) is not None and not run.base.is_dir():
            run.copy_base(beside)
    if run.base.is_dir():
        captioner.core().name_or_path = str(run.base)
        name_base(captioner)


LOOKED_AT = 64  # numbers of each weight


def fingerprints_of(
    captioner: CaptionerModel, images: dict[str, Images], captions: dict[str, TokenizedCaptions]
) -> dict[str, str]:
    """Marks of the model and of each split."""
    return {"model": of_model(captioner)} | {name: of_split(images[name], captions[name]) for name in images}


def of_split(images: Images, captions: TokenizedCaptions) -> str:
    """A mark of a split's pictures and captions, in their order.

    Cached pictures are identified by content, others by id. The captions of a large store are not read for it.
    """
    mark = len(images)
    if isinstance(images, CachedImages):
        mark = zlib.crc32("".join(images.keys).encode(), mark)
    elif not isinstance(images, StoredImages):
        mark = zlib.crc32(np.ascontiguousarray(keys_of(images.samples)).tobytes(), mark)
    if not isinstance(captions, StoredCaptions):
        for numbers in (captions.tokens, captions.caption_ends, captions.sample_ends):
            mark = zlib.crc32(np.ascontiguousarray(numbers).tobytes(), mark)
    return f"{mark:08x}"


def of_model(captioner: CaptionerModel) -> str:
    """A mark of the weights that do not learn, by the first numbers of each; those that learn are in the checkpoints.

    The numbers are rounded to bf16, since frozen weights may be stored in it: the mark is the same on all devices.
    """
    frozen = {name: weight for name, weight in captioner.named_parameters() if not weight.requires_grad}
    mark = zlib.crc32(repr([(name, tuple(weight.shape)) for name, weight in frozen.items()]).encode())
    if frozen:
        first = [weight.detach().reshape(-1)[:LOOKED_AT].to("cpu", torch.bfloat16) for weight in frozen.values()]
        mark = zlib.crc32(torch.cat(first).view(torch.uint8).numpy().data, mark)
    return f"{mark:08x}"

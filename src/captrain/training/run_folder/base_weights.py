"""What of a run's beginning is kept in its folder, as `base/`: weights that lie nowhere else, and that its adapter needs.

These are captioners that were joined anew, adapters merged into their base, and bases that travel with an adapter that goes on
learning. A base that has a place of its own (a checkpoint's folder, a hub id) stays there, and the adapter names it.

Short marks of a run's data and of its frozen weights: whether what lies under the same names is still the same.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from captrain.data.samples import keys_of
from captrain.errors import RunError
from captrain.features.stored_images import StoredImages
from captrain.features.training_images import Images, KeptImages
from captrain.models.adapters import name_base, travels_with
from captrain.models.captioner import CaptionerModel
from captrain.models.checkpoint.folder import model_folder, save_captioner
from captrain.settings.schema import Settings
from captrain.settings.schema.conflicts import method_of
from captrain.training.captioner_setup import build_captioner
from captrain.training.captions import StoredCaptions
from captrain.training.rows import TokenizedCaptions
from captrain.training.run_folder.folder import RunFolder
from captrain.training.run_folder.place import told

MADE_OF = ("model.model", "model.continue_adapter", "model.encoder", "model.decoder", "model.join")
"""Settings that say what a base is made of."""


def check_base(run: RunFolder, changes: Sequence[str]) -> None:
    """Raise `RunError` where a run that has a base is to go on with another one: what it saved would be on the wrong base.

    Args:
        changes: of settings, as `RunFolder.claim` gives them.
    """
    if run.base.is_dir() and (made := [change for change in changes if change.split(" ")[0] in MADE_OF]):
        raise RunError(
            f"{run.path}: its weights lie on {run.base}, which was made of another model ({told(made)}); "
            "choose another folder, or --overwrite to begin anew"
        )


def begun(settings: Settings, captions: Iterable[str], run: RunFolder | None, question: str = "") -> CaptionerModel:
    """The captioner that a run begins with; what its adapter will need lies on the disk.

    Args:
        run: where it is kept, and found by a run that goes on; None for a dry run, which keeps nothing.
        question: what the data asks for its captions, as `build_captioner` takes it.
    """
    captioner = build_captioner(settings, captions, run.base if run else None, question)
    model = settings.model
    if model.continue_adapter:
        if run is not None:
            _keep_travelling(captioner, model.model, model.base, run)
        return captioner
    merged = method_of(model) == "lora" and captioner.core().name_or_path == ""
    if run is not None and (merged or model.encoder is not None):
        if not run.base.is_dir():
            run.save_base(captioner)
        captioner.core().name_or_path = str(run.base)
    if not merged or not model.quantize:
        return captioner
    if run is not None:
        return build_captioner(settings, captions, run.base, question)
    with TemporaryDirectory(prefix="captrain-") as folder:
        save_captioner(captioner, Path(folder))
        return build_captioner(settings, captions, Path(folder), question)


def _keep_travelling(captioner: CaptionerModel, source: str, base: str | None, run: RunFolder) -> None:
    """Copy the base that lies with an adapter, and let the adapter name the copy: the other run or archive may go."""
    with model_folder(source) as folder:
        if base is None and (beside := travels_with(folder)) is not None and not run.base.is_dir():
            run.copy_base(beside)
    if run.base.is_dir():
        captioner.core().name_or_path = str(run.base)
        name_base(captioner)


LOOKED_AT = 64  # numbers of each weight


def fingerprints(
    captioner: CaptionerModel, images: dict[str, Images], captions: dict[str, TokenizedCaptions]
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


def of_model(captioner: CaptionerModel) -> str:
    """A mark of the weights that do not learn, by the first numbers of each; those that learn are in the checkpoints.

    The numbers are rounded to bf16, in which frozen weights may lie: the mark is the same on all devices.
    """
    frozen = {name: weight for name, weight in captioner.named_parameters() if not weight.requires_grad}
    mark = zlib.crc32(repr([(name, tuple(weight.shape)) for name, weight in frozen.items()]).encode())
    if frozen:
        first = [weight.detach().reshape(-1)[:LOOKED_AT].to("cpu", torch.bfloat16) for weight in frozen.values()]
        mark = zlib.crc32(torch.cat(first).view(torch.uint8).numpy().data, mark)
    return f"{mark:08x}"

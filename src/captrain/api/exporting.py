"""`captrain.export`, `captrain.push` and `captrain.zoo`: captioners as plain models, on the hub, and those that are there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from captrain.api.checks import check_choices, check_free, check_models
from captrain.api.options import Place, place
from captrain.api.process import calling

if TYPE_CHECKING:
    from captrain.models.zoo import Checkpoint

WeightType = Literal["fp32", "fp16", "bf16"]
"""Precision of written weights."""
WEIGHT_TYPES = ("fp32", "fp16", "bf16")


def export(
    model: Place,
    out: Place,
    *,
    merge: bool = True,
    dtype: WeightType = "fp32",
    base: Place | None = None,
    trust_remote_code: bool = False,
    safetensors_only: bool = False,
) -> Path:
    """Export a trained captioner as a plain model, as `captrain export` does, and return where it is.

    Folder and file hold all that captioning needs (weights, tokenizer, image preparation, decoding settings), a model card, and
    the recipe of the training. `captrain.load` loads both, and transformers loads the folder.

    Args:
        model: Run folder, model folder or hub id.
        out: New folder, or a file name that ends in .zip.
        merge: Merge the adapter into the weights. False keeps it separate.
        dtype: Precision of the exported weights. fp16 and bf16 halve the size.
        base: Base model of an adapter (folder or hub id), if it has moved since the training.
        trust_remote_code, safetensors_only: As for `captrain.load`.

    Raises `ModelError` if there is no such captioner, if `out` exists, or if the weights do not fit into `dtype`.

    >>> import pathlib, tempfile
    >>> from captrain.testing import tiny_blip
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> export(tiny_blip(folder / "blip"), folder / "cats.zip", dtype="fp16").name
    'cats.zip'
    """
    check_choices(WEIGHT_TYPES, dtype=dtype)
    with calling(trust_remote_code=trust_remote_code, safetensors_only=safetensors_only) as begin:
        check_models(place(model))
        check_free(Path(out))
        begin()
        from captrain.models.checkpoint.export import export as export_captioner

        moved = None if base is None else place(base)
        return export_captioner(place(model), Path(out), merge=merge, dtype=dtype, base=moved)


def push(
    model: Place,
    hub_id: str,
    *,
    public: bool = False,
    merge: bool = True,
    dtype: WeightType = "fp32",
    trust_remote_code: bool = False,
    safetensors_only: bool = False,
) -> str:
    """Upload a trained captioner and its model card to the hub, as `captrain push` does, and return its address.

    Args:
        model: Run folder, model folder or .zip.
        hub_id: Name on the hub, such as ada/cat-captions.
        public: Make it public. Default: a new model is private, an existing one stays as it is.
        merge, dtype: As for `captrain.export`.
        trust_remote_code, safetensors_only: As for `captrain.load`.

    Raises `ModelError` for a name that the hub can't have, or without a token; `CaptrainError` if the hub refuses.

    >>> push("runs/cats", "ada/cat-captions")                # doctest: +SKIP
    'https://huggingface.co/ada/cat-captions'
    """
    check_choices(WEIGHT_TYPES, dtype=dtype)
    with calling(trust_remote_code=trust_remote_code, safetensors_only=safetensors_only) as begin:
        check_models(place(model))
        begin()
        from captrain.models.checkpoint.export import push as push_captioner

        return push_captioner(place(model), hub_id, public=public, merge=merge, dtype=dtype)


def zoo() -> tuple[Checkpoint, ...]:
    """Published captioners by short name, with the scores of their papers, as `captrain models` lists them.

    >>> [checkpoint.hub_id for checkpoint in zoo() if checkpoint.name == "blip-large"]
    ['Salesforce/blip-image-captioning-large']
    """
    from captrain.models.zoo import CHECKPOINTS

    return CHECKPOINTS

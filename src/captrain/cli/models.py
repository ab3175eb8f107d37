"""`captrain models`, `captrain export` and `captrain push`."""

from __future__ import annotations

import json as json_format
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from captrain.api.exporting import WeightType, zoo
from captrain.api.exporting import export as export_captioner
from captrain.api.exporting import push as push_captioner
from captrain.cli.arguments import Merge, Switch
from captrain.cli.flags import TrustFlags, trusted
from captrain.cli.show import show_table

if TYPE_CHECKING:
    from captrain.models.zoo import Checkpoint


HEADER = ("--model", "family", "parameters", "pixels", "CIDEr", "BLEU-4", "licence", "hub id")


def models(*, json: Switch = False) -> int:
    """List published captioners by short name, with the scores of their papers (COCO, Karpathy test split).

    Args:
        json: Print one JSON object instead of a table, with sources and remarks.
    """
    if json:
        print(json_format.dumps({"models": [checkpoint.to_dict() for checkpoint in zoo()]}))
        return 0
    show_table(map(row, zoo()), HEADER)
    print()
    show_table(remarks(zoo()))
    return 0


def row(checkpoint: Checkpoint) -> tuple[str, ...]:
    """A checkpoint as a line of the table; what is not known is left blank."""
    return (
        checkpoint.name,
        checkpoint.family,
        _count(checkpoint.millions),
        _shown(checkpoint.image_size),
        _shown(checkpoint.cider),
        _shown(checkpoint.bleu_4),
        checkpoint.licence,
        checkpoint.hub_id or "none",
    )


def remarks(checkpoints: tuple[Checkpoint, ...]) -> Iterator[tuple[str, str]]:
    """Where scores are from and what else to know, each with the names it is about."""
    names: dict[str, list[str]] = {}
    for checkpoint in checkpoints:
        for remark in filter(None, (checkpoint.source, checkpoint.note)):
            names.setdefault(remark, []).append(checkpoint.name)
    for remark, about in names.items():
        yield ", ".join(about), remark


def _count(millions: int | None) -> str:
    """A number of parameters in few letters.

    >>> _count(247), _count(3800), _count(None)
    ('247M', '3.8B', '')
    """
    if millions is None:
        return ""
    return f"{millions}M" if millions < 1000 else f"{millions / 1000:.1f}B"


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def export(
    run: str,
    out: Path,
    /,
    *,
    merge: Merge = True,
    dtype: WeightType = "fp32",
    base: str | None = None,
    model_files: TrustFlags = None,
) -> int:
    """Export a trained captioner as a plain model: a folder, or one file if OUT ends in .zip.

    Both hold everything that captioning needs (weights, tokenizer, image preparation, decoding settings) and a model card.
    `captrain.load` loads both, and transformers loads the folder.

    Args:
        run: Run folder, model folder or hub id.
        out: New folder, or a file name that ends in .zip.
        merge: Merge the adapter into the weights, or keep it separate.
        dtype: Precision of the exported weights; fp16 and bf16 halve the size.
        base: Base model of an adapter (folder or hub id), if it has moved since the training.
    """
    print(export_captioner(run, out, merge=merge, dtype=dtype, base=base, **trusted(model_files)))
    return 0


def push(
    run: str,
    hub_id: str,
    /,
    *,
    public: Switch = False,
    merge: Merge = True,
    dtype: WeightType = "fp32",
    model_files: TrustFlags = None,
) -> int:
    """Upload a trained captioner and its model card to the hub, and print where it is.

    Args:
        run: Run folder, model folder or .zip.
        hub_id: Name on the hub, such as ada/cat-captions.
        public: Make it public. Default: a new model is private, an existing one stays as it is.
        merge: Merge the adapter into the weights, or keep it separate.
        dtype: Precision of the exported weights; fp16 and bf16 halve the size.
    """
    print(push_captioner(run, hub_id, public=public, merge=merge, dtype=dtype, **trusted(model_files)))
    return 0

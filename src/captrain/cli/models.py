"""`captrain models`."""

from __future__ import annotations

import json as json_format
from collections.abc import Iterator
from typing import TYPE_CHECKING

from captrain.cli.show import show_table
from captrain.cli.switch import Switch

if TYPE_CHECKING:
    from captrain.models.zoo import Checkpoint

HEADER = ("--model", "family", "parameters", "pixels", "CIDEr", "BLEU-4", "licence", "hub id")


def models(*, json: Switch = False) -> int:
    """List published captioners by short name, with scores as their papers state them (COCO, Karpathy test split).

    Args:
        json: Print one JSON object instead of a table, with sources and remarks.
    """
    from captrain.models.zoo import CHECKPOINTS

    if json:
        print(json_format.dumps({"models": [checkpoint.to_dict() for checkpoint in CHECKPOINTS]}))
        return 0
    show_table(map(row, CHECKPOINTS), HEADER)
    print()
    show_table(remarks(CHECKPOINTS))
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

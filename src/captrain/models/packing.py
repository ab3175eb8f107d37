"""All captions of an image in one row: tokens one after another, positions restart, no padding inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

IGNORED = -100
"""Label of tokens that are not learned: the prompt, padding."""
WORTH_SPLITTING = 0.1
"""The share of a batch's places that a split must save: below it a second pass costs more than the padding."""


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Rows ready for a decoder; all tensors are (R rows, L tokens), int64. Row r belongs to image r.

    `labels[r, i]` is the token to be predicted *at* position i (already shifted), or `IGNORED`.
    """

    input_ids: Tensor
    position_ids: Tensor
    caption_ids: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> PackedRows:
        """The same rows on a device."""
        return PackedRows(*(getattr(self, name).to(device, non_blocking=True) for name in self.__slots__))

    def to_dict(self) -> dict[str, Tensor]:
        """As keyword arguments of a captioner's forward."""
        return {name: getattr(self, name) for name in self.__slots__}


def pack(rows: Sequence[Sequence[Sequence[int]]], start: int, end: int, prompt: Sequence[int] = ()) -> PackedRows:
    """Pack the captions of each image into one row.

    Args:
        rows: for each image its captions, for each caption its token ids without start and end.
        start: the id that begins a caption. end: the id that ends it, and is learned. prompt: given, not learned.

    Padding stands only behind a row's last caption, and has caption number 0. The last input of a caption predicts its end,
    so that the end token itself is never an input.

    >>> packed = pack([[[7, 8], [9]]], start=1, end=2)
    >>> packed.input_ids.tolist(), packed.position_ids.tolist()
    ([[1, 7, 8, 1, 9]], [[0, 1, 2, 0, 1]])
    >>> packed.caption_ids.tolist(), packed.labels.tolist()
    ([[1, 1, 1, 2, 2]], [[7, 8, 2, 9, 2]])
    """
    head = [start, *prompt]
    lengths = [sum(len(head) + len(caption) for caption in captions) for captions in rows]
    shape = (len(rows), max(lengths, default=0))
    input_ids, position_ids, caption_ids, labels = (torch.zeros(shape, dtype=torch.int64) for _ in range(4))
    labels.fill_(IGNORED)
    input_ids.fill_(end)
    for row, captions in enumerate(rows):
        at = 0
        for number, caption in enumerate(captions, start=1):
            inputs = [*head, *caption]
            stop = at + len(inputs)
            input_ids[row, at:stop] = torch.tensor(inputs)
            position_ids[row, at:stop] = torch.arange(len(inputs))
            caption_ids[row, at:stop] = number
            labels[row, at + len(prompt) : stop] = torch.tensor([*caption, end])
            at = stop
    return PackedRows(input_ids, position_ids, caption_ids, labels)


def even_groups(lengths: Sequence[int]) -> list[list[int]]:
    """The rows of a batch in one or two groups of similar length, each computed without the padding of the longest of all.

    They are split where that saves most places, if it saves a tenth of them: more groups cost more passes than they save.

    Args:
        lengths: tokens of each row (rows,).

    Returns:
        Positions of rows, a list a group, in each the shorter ones first, and so are the groups.

    >>> even_groups([60, 110, 58, 112]), even_groups([60, 62, 61])
    ([[2, 0], [1, 3]], [[0, 2, 1]])
    """
    order = np.argsort(lengths, kind="stable")
    rising, longest, rows = np.asarray(lengths)[order], max(lengths), len(lengths)
    shorter = np.arange(1, rows)
    places = shorter * rising[:-1] + (rows - shorter) * longest
    if not len(places) or places.min() > (1 - WORTH_SPLITTING) * rows * longest:
        return [order.tolist()]
    cut = int(places.argmin()) + 1
    return [order[:cut].tolist(), order[cut:].tolist()]

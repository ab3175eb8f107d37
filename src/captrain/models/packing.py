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
"""The share of a group's places that a split must save: below it a second pass costs more than the padding."""


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
    """The rows of a batch in groups of similar length, each in turn computed without the padding of the longest of all.

    A group is split in two where that saves it most places, as long as it saves a tenth of them.

    Args:
        lengths: tokens of each row (rows,).

    Returns:
        Positions of rows, a list a group, the shorter ones first.

    >>> even_groups([60, 110, 58, 112]), even_groups([60, 62, 61])
    ([[2, 0], [1, 3]], [[0, 2, 1]])
    """
    order = np.argsort(lengths, kind="stable")
    return [group.tolist() for group in _split(order, np.asarray(lengths)[order])]


def _split(order: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """Rows by rising length, split as long as it is worth it."""
    if len(order) < 2:
        return [order]
    firsts = np.arange(1, len(order))
    places = firsts * lengths[:-1] + (len(order) - firsts) * lengths[-1]
    cut = int(places.argmin())
    if places[cut] > (1 - WORTH_SPLITTING) * len(order) * lengths[-1]:
        return [order]
    first = int(firsts[cut])
    return _split(order[:first], lengths[:first]) + _split(order[first:], lengths[first:])

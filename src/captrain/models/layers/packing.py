"""All captions of an image in one row: tokens one after another, positions restart, no padding inside.

The loss of learned tokens, a few rows at a time: the scores of a large vocabulary are read twice and copied never.

torch's own cross entropy writes three more arrays of all tokens times the vocabulary, in fp32, and reads each again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

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


NUMBERS_AT_ONCE = 1 << 18
"""Scores looked at together: in fp32 they fit the cache of a core."""
NUMBERS_AT_ONCE_ON_GPU = 1 << 26


def token_loss(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """The cross entropy of vocabulary scores (T, V) with targets (T), summed over the tokens, in fp32 at least.

    Equal to `cross_entropy(logits.float(), targets, label_smoothing=label_smoothing, reduction="sum")` but for the order
    of its sums. `label_smoothing` is the share of each target that all tokens of the vocabulary share.

    >>> round(float(token_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))), 4)
    0.6931
    """
    if torch.compiler.is_compiling():
        return cross_entropy(logits.float(), targets, label_smoothing=label_smoothing, reduction="sum")
    return _TokenLoss.apply(logits, targets, label_smoothing)


class _TokenLoss(torch.autograd.Function):
    """Of one token with scores x and target t: log sum exp(x) - (1 - smoothing) x[t] - smoothing mean(x)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        kind = torch.promote_types(logits.dtype, torch.float32)
        total = torch.zeros((), dtype=kind, device=logits.device)
        for scores, words in _pieces(logits, targets):
            scores = scores.to(kind)
            total += scores.logsumexp(1).sum() - (1 - smoothing) * scores.gather(1, words[:, None]).sum()
            if smoothing:
                total -= smoothing * scores.mean(1).sum()
        ctx.smoothing = smoothing
        ctx.save_for_backward(logits, targets)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        logits, targets = ctx.saved_tensors
        gradient, smoothing = torch.empty_like(logits), ctx.smoothing
        start = 0
        for scores, words in _pieces(logits, targets):
            stop = start + len(scores)
            shares = scores.softmax(1, dtype=gradients[0].dtype)  # not from the kept sum: that loses four bits
            if smoothing:
                shares -= smoothing / logits.shape[1]
            shares.scatter_add_(1, words[:, None], shares.new_full((len(words), 1), smoothing - 1))
            gradient[start:stop] = shares.mul_(gradients[0])
            start = stop
        return gradient, None, None


def _pieces(logits: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Rows of scores and their targets, a few at a time."""
    numbers = NUMBERS_AT_ONCE if logits.device.type == "cpu" else NUMBERS_AT_ONCE_ON_GPU
    rows = max(1, numbers // logits.shape[1])
    return list(zip(logits.split(rows), targets.split(rows), strict=True))

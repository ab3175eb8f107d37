"""The loss of learned tokens, a few rows at a time: the scores of a large vocabulary are read twice and copied never.

torch's own cross entropy writes three more arrays of all tokens times the vocabulary, in fp32, and reads each again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

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

"""Which images an epoch of training shows, and in which order: several data sets by ratio, images by their repeats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Mixture:
    """An exact, reproducible mixture of data sets.

    An epoch has as many rows as all images (times their repeats) together. With ratios each data set gets exactly its
    share of them, rounded by largest remainders. A data set that gives fewer rows than it has images goes on in the next
    epoch where it stopped; one that gives more begins again, in another order. The order of an epoch is decided by seed
    and epoch alone.

    Args:
        labels: for each image the number of its data set, 0, 1, ... (images,).
        ratios: one positive number a data set; None takes every image once an epoch.
        repeats: for each image how often it counts (images,); None for once.

    >>> mixture = Mixture(np.array([0, 0, 0, 0, 1, 1]), ratios=[1, 2])
    >>> [int(sum(mixture.order(epoch) >= 4)) for epoch in range(3)]
    [4, 4, 4]
    """

    def __init__(
        self,
        labels: np.ndarray,
        ratios: Sequence[float] | None = None,
        repeats: np.ndarray | None = None,
        seed: int = 0,
    ) -> None:
        times = np.ones(len(labels), dtype=np.int64) if repeats is None else repeats
        count = int(labels.max(initial=-1)) + 1 if ratios is None else len(ratios)
        self.seed = seed
        self.parts = [np.repeat(np.flatnonzero(labels == part), times[labels == part]) for part in range(count)]
        self.quotas = _quotas([len(part) for part in self.parts], ratios)

    def __len__(self) -> int:
        return sum(self.quotas)

    def order(self, epoch: int) -> np.ndarray:
        """Positions of the images of an epoch, in the order in which they are shown (rows,)."""
        chosen = np.concatenate(
            [self._take(number, epoch) for number in range(len(self.parts))] or [np.empty(0, np.int64)]
        )
        return np.random.default_rng([self.seed, epoch]).permutation(chosen)

    def _take(self, number: int, epoch: int) -> np.ndarray:
        """What a data set gives to an epoch: the next piece of its permutations laid end to end."""
        part, quota = self.parts[number], self.quotas[number]
        if quota == len(part):
            return part
        pieces, start = [], epoch * quota
        while quota > 0:
            turn, offset = divmod(start, len(part))
            order = np.random.default_rng([self.seed, number, turn]).permutation(part)
            pieces.append(order[offset : offset + quota])
            start, quota = start + len(pieces[-1]), quota - len(pieces[-1])
        return np.concatenate(pieces) if pieces else part[:0]


def _quotas(lengths: Sequence[int], ratios: Sequence[float] | None) -> list[int]:
    """Rows of each data set: shares of all rows by largest remainders; a data set without images has none.

    >>> _quotas([10, 10, 10], [1, 1, 2]), _quotas([3, 4], None)
    ([8, 7, 15], [3, 4])
    """
    if ratios is None:
        return list(lengths)
    weights = np.array([ratio if length else 0.0 for ratio, length in zip(ratios, lengths, strict=True)])
    if not weights.sum():
        return [0] * len(lengths)
    exact = sum(lengths) * weights / weights.sum()
    quotas = np.floor(exact).astype(int)
    by_remainder = np.argsort(quotas - exact, kind="stable")
    quotas[by_remainder[: sum(lengths) - quotas.sum()]] += 1
    return [int(quota) for quota in quotas]

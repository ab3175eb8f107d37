"""An epoch in batches of rows that are about as long: what is computed for padding is lost."""

from __future__ import annotations

import numpy as np

from captrain.data.mix import Mixture


class LengthMixture(Mixture):
    """A mixture whose epochs come in batches of even rows, still shuffled among and inside windows of some batches."""

    def __init__(self, mixture: Mixture, lengths: np.ndarray, batch_size: int, window: int) -> None:
        """`lengths`: tokens of each image's row (images,). batch_size: rows a step. window: batches sorted together."""
        self.mixture, self.lengths, self.seed = mixture, lengths, mixture.seed
        self.batch_size, self.window = batch_size, window

    def __len__(self) -> int:
        return len(self.mixture)

    def order(self, epoch: int) -> np.ndarray:
        """The rows of that epoch of the mixture, sorted inside windows."""
        return by_length(self.mixture.order(epoch), self.lengths, self.batch_size, self.window, (self.seed, epoch))


def by_length(
    order: np.ndarray, lengths: np.ndarray, batch_size: int, window: int, seed: tuple[int, ...] = (0,)
) -> np.ndarray:
    """A shuffled order, in which each batch holds rows that are about as long.

    Args:
        order: positions of images, shuffled (rows,). lengths: of each image's row (images,). window: whole batches that are
            sorted together, and then shuffled as batches, by `seed`.

    Returns:
        The same positions (rows,). What is left of the last batch stays at the end, as it was.

    >>> by_length(np.array([0, 1, 2, 3, 4]), np.array([9, 1, 8, 2, 5]), batch_size=2, window=2).tolist()
    [1, 3, 2, 0, 4]
    """
    whole = len(order) // batch_size * batch_size
    draw = np.random.default_rng([*seed, batch_size, window])
    pieces = []
    for start in range(0, whole, batch_size * window):
        rows = order[start : min(start + batch_size * window, whole)]
        batches = rows[np.argsort(lengths[rows], kind="stable")].reshape(-1, batch_size)
        pieces.append(draw.permutation(batches).reshape(-1))
    return np.concatenate([*pieces, order[whole:]])

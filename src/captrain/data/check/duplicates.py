"""Which pictures are the same, and which look the same, among very many.

Two pictures look the same if their 64-bit perceptual hashes differ in at most `NEAR_BITS` bits and their 8 x 8 colour
patches by at most `NEAR_COLOUR` levels in the mean. (Of the 24 million pairs of Flickr8k's 7,000 pictures, the two files
that are the same are the only one; the next differs in 8 bits and 30 levels. Copies of COCO photos at JPEG quality 40,
half or double size are all found, copies with 2 % cut off mostly.) Pairs are found without comparing each with each
(multi-index hashing: Norouzi, Punjani, Fleet 2012) but only if in one of three bands of bits they differ in at most one:
that holds for all that differ in five bits, and for most of those that differ in up to eight.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

NEAR_BITS = 8
NEAR_COLOUR = 8.0  # of 255
FLAT = 2.0  # deviation of a patch below which a picture is one colour, about which a hash says nothing
BANDS = ((0, 21), (21, 21), (42, 22))  # first bit and width
AT_ONCE = 1 << 21  # pairs compared at a time


def same_groups(keys: np.ndarray, pictures: np.ndarray) -> list[np.ndarray]:
    """Groups of at least two pictures with equal keys, each in ascending order.

    >>> same_groups(np.array([7, 8, 7], dtype=np.uint64), np.array([0, 4, 5]))
    [array([0, 5])]
    """
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order])) + 1
    return [np.sort(pictures[group]) for group in np.split(order, starts) if len(group) > 1]


def near_groups(looks: np.ndarray, patches: np.ndarray, pictures: np.ndarray) -> list[np.ndarray]:
    """Groups of pictures of which each looks like another of its group.

    Args:
        looks: uint64 (n,), perceptual hashes.
        patches: uint8 (n, d), what is compared for pictures with close hashes.
        pictures: int64 (n,), what the pictures are called in the result.
    """
    structured = np.flatnonzero(_deviation(patches) >= FLAT)
    looks, patches, pictures = looks[structured], patches[structured], pictures[structured]
    groups = _Groups(len(looks))
    for left, right in _candidates(looks):
        close = _distance(patches, left, right) <= NEAR_COLOUR
        groups.join(left[close], right[close])
    return same_groups(groups.labels(), pictures)


def _candidates(looks: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs with close hashes. Of those with equal hashes only neighbours, so that a million equal ones stay few pairs."""
    order = np.argsort(looks, kind="stable")
    ordered = looks[order]
    fresh = np.concatenate([[True], ordered[1:] != ordered[:-1]]) if len(order) else np.empty(0, bool)
    yield order[:-1][~fresh[1:]], order[1:][~fresh[1:]]
    unique, first = ordered[fresh], order[fresh]
    for start, width in BANDS:
        for left, right in _sharing_band(unique, start, width):
            yield first[left], first[right]


def _sharing_band(hashes: np.ndarray, start: int, width: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of close hashes whose bits from `start` on differ in at most one place."""
    band = (hashes >> np.uint64(start)) & np.uint64((1 << width) - 1)
    order = np.argsort(band, kind="stable")
    ordered = band[order]
    for flip in (0, *(1 << bit for bit in range(width))):
        wanted = ordered ^ np.uint64(flip)
        begin, end = np.searchsorted(ordered, wanted, "left"), np.searchsorted(ordered, wanted, "right")
        # Each pair once: from its lower place on. With no bit flipped, a place also finds itself.
        begin = np.maximum(begin, np.arange(1, len(order) + 1))
        for left, right in _expanded(begin, np.maximum(end, begin)):
            one, other = order[left], order[right]
            close = np.bitwise_count(hashes[one] ^ hashes[other]) <= NEAR_BITS
            yield one[close], other[close]


def _expanded(begin: np.ndarray, end: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(i, j) for each i and each j in begin[i] .. end[i] - 1, a bounded number at a time."""
    sizes = end - begin
    places = np.flatnonzero(sizes)
    totals = np.cumsum(sizes[places])
    at = done = 0
    while at < len(places):
        stop = max(at + 1, int(np.searchsorted(totals, done + AT_ONCE, "right")))
        left = np.repeat(places[at:stop], sizes[places[at:stop]])
        offsets = np.arange(len(left)) - np.repeat(
            totals[at:stop] - sizes[places[at:stop]] - done, sizes[places[at:stop]]
        )
        yield left, begin[left] + offsets
        at, done = stop, int(totals[stop - 1])


def _distance(patches: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Mean absolute difference of pairs of patches."""
    return np.abs(patches[left].astype(np.int16) - patches[right].astype(np.int16)).mean(axis=1)


def _deviation(patches: np.ndarray) -> np.ndarray:
    """How much each patch varies from cell to cell; patches in slices, for they become floats."""
    parts = [
        patches[at : at + 65536].reshape(-1, 64, 3).std(axis=1).max(axis=1) for at in range(0, len(patches), 65536)
    ]
    return np.concatenate(parts) if parts else np.empty(0)


class _Groups:
    """Things that are joined pair by pair (union-find with path halving)."""

    def __init__(self, count: int) -> None:
        self.parents = np.arange(count)

    def join(self, left: np.ndarray, right: np.ndarray) -> None:
        for one, other in zip(left.tolist(), right.tolist(), strict=True):
            a, b = self._root(one), self._root(other)
            self.parents[max(a, b)] = min(a, b)

    def labels(self) -> np.ndarray:
        """The same number for all things of a group: roots have smaller numbers, so one pass upwards finds them."""
        labels = self.parents.copy()
        while not np.array_equal(labels, labels[labels]):
            labels = labels[labels]
        return labels

    def _root(self, thing: int) -> int:
        parents = self.parents
        while parents[thing] != thing:
            parents[thing] = parents[parents[thing]]
            thing = int(parents[thing])
        return thing

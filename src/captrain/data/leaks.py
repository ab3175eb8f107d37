"""Pictures that are in two splits: a captioner is then measured on what it was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from captrain.data.content import MOST, content_key, size_of
from captrain.data.samples import keys_of
from captrain.records import Sample


def shared_pictures(splits: Mapping[str, Sequence[Sample]], one_source: bool = True) -> dict[tuple[str, str], int]:
    """How many pictures of each later split are in an earlier one too, where there are any.

    Pictures are compared by content: only those are read whose size occurs in both splits. What is too much for that, or has
    no picture (features), is compared by ids, which says something within `one_source` alone.

    >>> splits = {"train": [Sample("a", b"1"), Sample("b", b"22")], "test": [Sample("c", b"1"), Sample("d", b"33")]}
    >>> shared_pictures(splits)
    {('train', 'test'): 1}
    """
    sizes = {name: _sizes(samples) for name, samples in splits.items()}
    found = {}
    for one, other in combinations(splits, 2):
        mine, theirs = sizes[one], sizes[other]
        if mine is not None and theirs is not None:
            keys = set(_contents(splits[one], np.isin(mine, theirs)))
            count = sum(key in keys for key in _contents(splits[other], np.isin(theirs, mine)))
        else:
            both = np.intersect1d(keys_of(splits[one]), keys_of(splits[other])) if one_source else ()
            count = len(both)
        if count:
            found[one, other] = count
    return found


def _sizes(samples: Sequence[Sample]) -> np.ndarray | None:
    """Bytes of each picture; -1 where the picture can't be found. None where there are too many, or some have no size."""
    if len(samples) > MOST:
        return None
    sizes = np.empty(len(samples), dtype=np.int64)
    for index, sample in enumerate(samples):
        size = size_of(sample)
        if size is None:
            return None
        sizes[index] = size
    return sizes


def _contents(samples: Sequence[Sample], wanted: np.ndarray) -> Iterator[str]:
    """Digests of the wanted pictures; what can't be read has none."""
    for index in np.flatnonzero(wanted):
        try:
            yield content_key(samples[int(index)].read())
        except (OSError, ValueError):
            continue

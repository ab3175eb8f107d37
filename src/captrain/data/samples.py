"""Sequences of samples that are made when they are asked for, so that a million of them take a few bytes each.

A `Mixture` says which of them an epoch of training shows, and in which order: data sets by ratio, images by their repeats.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, chain, compress
from typing import overload

import numpy as np

from captrain.records import Sample


def key_of(sample_id: str) -> int:
    """A 64-bit number for an id: the same on every machine and in every process, which `hash` is not.

    >>> key_of("dog.jpg")
    7827791757134186162
    """
    digest = hashlib.blake2b(sample_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


class LazySamples(Sequence[Sample]):
    """A sequence whose samples are made by `sample_at`. A slice is lazy too."""

    @abstractmethod
    def sample_at(self, index: int) -> Sample:
        """The sample at `index`, which is within range."""

    def keys(self) -> np.ndarray:
        """`key_of` each id, as uint64: what splits are drawn by."""
        return np.array([key_of(sample.id) for sample in self], dtype=np.uint64)

    def ids(self) -> Iterator[str]:
        """The id of each sample, in order; cheaper than making the samples where that is possible."""
        return (sample.id for sample in self)

    def contents(self) -> Iterator[str] | None:
        """The content key of each sample's picture, in order; None if that takes reading pictures."""
        return None

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(index, slice):
            return ChosenSamples(self, np.arange(len(self))[index])
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self.sample_at(int(index) % len(self))


class ChosenSamples(LazySamples):
    """Some samples of a sequence, by their positions (int64), in that order."""

    def __init__(self, samples: Sequence[Sample], positions: np.ndarray) -> None:
        self.samples = samples
        self.positions = positions

    def __len__(self) -> int:
        return len(self.positions)

    def sample_at(self, index: int) -> Sample:
        return self.samples[int(self.positions[index])]

    def keys(self) -> np.ndarray:
        return keys_of(self.samples)[self.positions]

    def ids(self) -> Iterator[str]:
        return _picked(ids_of(self.samples), self.positions)

    def contents(self) -> Iterator[str] | None:
        found = contents_of(self.samples)
        return None if found is None else _picked(found, self.positions)


class QuestionSamples(LazySamples):
    """Samples whose captions all answer one question; "" if they answer different ones."""

    def __init__(self, samples: Sequence[Sample], question: str) -> None:
        self.samples, self.question = samples, question

    def __len__(self) -> int:
        return len(self.samples)

    def sample_at(self, index: int) -> Sample:
        return self.samples[index]

    def keys(self) -> np.ndarray:
        return keys_of(self.samples)


class JoinedSamples(LazySamples):
    """Several sequences, one after another."""

    def __init__(self, parts: Sequence[Sequence[Sample]]) -> None:
        self.parts = parts
        self.ends = list(accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def sample_at(self, index: int) -> Sample:
        part = bisect_right(self.ends, index)
        return self.parts[part][index - (self.ends[part - 1] if part else 0)]

    def keys(self) -> np.ndarray:
        return np.concatenate([np.empty(0, np.uint64), *(keys_of(part) for part in self.parts)])

    def ids(self) -> Iterator[str]:
        return (id for part in self.parts for id in ids_of(part))

    def contents(self) -> Iterator[str] | None:
        found = [contents_of(part) for part in self.parts]
        known = [part for part in found if part is not None]
        return chain.from_iterable(known) if len(known) == len(found) else None


class PrefixedSamples(LazySamples):
    """The samples of a sequence with longer ids, so that several sequences can be joined."""

    def __init__(self, prefix: str, samples: Sequence[Sample]) -> None:
        self.prefix = prefix
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def sample_at(self, index: int) -> Sample:
        sample = self.samples[index]
        return replace(sample, id=self.prefix + sample.id)

    def ids(self) -> Iterator[str]:
        return (self.prefix + id for id in ids_of(self.samples))

    def contents(self) -> Iterator[str] | None:
        return contents_of(self.samples)


def question_of(parts: Iterable[Sequence[Sample]]) -> str:
    """The question that the captions of all parts answer; "" if there is none, or not the same one.

    >>> question_of([QuestionSamples([], "What is it?"), QuestionSamples([], "What is it?")])
    'What is it?'
    """
    asked = {_question(part) for part in parts}
    return asked.pop() if len(asked) == 1 else ""


def _question(samples: Sequence[Sample]) -> str:
    if isinstance(samples, JoinedSamples):
        return question_of(samples.parts)
    return samples.question if isinstance(samples, QuestionSamples) else ""


def merged(splits: dict[str, Sequence[Sample]], more: Mapping[str, Sequence[Sample]]) -> None:
    """Add samples to some splits: after those that a split has."""
    for name, samples in more.items():
        splits[name] = JoinedSamples([splits[name], samples]) if name in splits else samples


def keys_of(samples: Sequence[Sample]) -> np.ndarray:
    """`key_of` each sample's id, as uint64."""
    if isinstance(samples, LazySamples):
        return samples.keys()
    return np.array([key_of(sample.id) for sample in samples], dtype=np.uint64)


def exact_keys_of(samples: Sequence[Sample]) -> np.ndarray:
    """`key_of` each id, as uint64, whatever the sequence: some mix a prefix into keys, so as not to read ids."""
    if isinstance(samples, ChosenSamples):
        return exact_keys_of(samples.samples)[samples.positions]
    if isinstance(samples, JoinedSamples):
        return np.concatenate([np.empty(0, np.uint64), *map(exact_keys_of, samples.parts)])
    if getattr(samples, "prefix", ""):
        return np.array([key_of(id) for id in ids_of(samples)], dtype=np.uint64)
    return keys_of(samples)


def ids_of(samples: Sequence[Sample]) -> Iterator[str]:
    """The id of each sample, in order.

    >>> list(ids_of([Sample("dog.jpg", b""), Sample("cat.jpg", b"")]))
    ['dog.jpg', 'cat.jpg']
    """
    return samples.ids() if isinstance(samples, LazySamples) else (sample.id for sample in samples)


def contents_of(samples: Sequence[Sample]) -> Iterator[str] | None:
    """The content key of each sample's picture, in order; None if that takes reading pictures."""
    return samples.contents() if isinstance(samples, LazySamples) else None


def _picked(items: Iterator[str], positions: np.ndarray) -> Iterator[str]:
    """Items by their positions. In rising order, as splits have them, few are held at a time.

    >>> list(_picked(iter("abcd"), np.array([1, 3]))), list(_picked(iter("abcd"), np.array([2, 0])))
    (['b', 'd'], ['c', 'a'])
    """
    if np.all(np.diff(positions) > 0):
        wanted = np.zeros(int(positions[-1]) + 1 if len(positions) else 0, dtype=bool)
        wanted[positions] = True
        return compress(items, wanted)
    known = list(items)
    return (known[position] for position in positions)


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

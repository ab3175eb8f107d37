"""Samples of tar shards in a stream, for sets that are too large to index or to copy: nothing is kept but a shuffle buffer.

Every reader (a worker process of a rank) reads its own shards, one after another, or its own samples where there are fewer
shards than readers. What a reader gives is decided by the seed, the epoch and which reader of how many it is; after
`state_dict` a new stream goes on at the very next sample.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from captrain.data.options import BY_LOOKING, ReadOptions
from captrain.data.places import is_remote
from captrain.data.shards.members import Group, Keys, groups
from captrain.data.shards.remote import RemoteFile
from captrain.data.shards.sources import Shard, expand, reject
from captrain.data.shards.tars import LARGEST_MEMBER, Bytes, Member
from captrain.disk.reading import open_file
from captrain.errors import DataError
from captrain.records import Rejects, Sample

_BUFFER = 1 << 20  # bytes read from a disk at once


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sample begins: the position of its shard in the reader's order, and its bytes in the shard."""

    shard: int
    start: int
    number: int  # of samples before it, usable or not, counted over shards


def stream_samples(
    shards: str | Sequence[str],
    options: ReadOptions = BY_LOOKING,
    *,
    shuffle_buffer: int = 1000,
    seed: int = 0,
    epoch: int = 0,
    rank: int = 0,
    world: int = 1,
    worker: int = 0,
    workers: int = 1,
    start: dict[str, Any] | None = None,
    rejects: Rejects | None = None,
    captioned: bool = True,
) -> SampleStream:
    """One reader's share of an epoch over tar shards, local or behind URLs.

    Over all readers (`world` ranks with `workers` each) every sample comes exactly once. Memory holds the images of
    `shuffle_buffer` samples and no more; 0 gives shards and samples in their order.

    Args:
        start: `state_dict()` of an earlier stream with the same arguments, to go on where it stopped.
        rejects: what can't be used is added here while it is met.

    Raises:
        DataError: A shard or URL can't be as given, or `start` is the state of another stream.
    """
    reader, readers = rank * workers + worker, world * workers
    if not 0 <= worker < workers or not 0 <= rank < world:
        raise DataError(f"reader {worker} of {workers} on rank {rank} of {world}; expected numbers from 0, below these")
    stream = SampleStream(
        expand(shards, rejects, follow_links=options.follow_links),
        Keys.of(options),
        shuffle_buffer=shuffle_buffer,
        seed=seed,
        epoch=epoch,
        reader=reader,
        readers=readers,
        rejects=Rejects() if rejects is None else rejects,
        captioned=captioned,
    )
    if start is not None:
        stream.load_state_dict(start)
    return stream


class SampleStream(Iterator[Sample]):
    """An iterator over samples, with their images' bytes, that can say where it is. Made by `stream_samples`."""

    def __init__(
        self,
        shards: Sequence[Shard],
        keys: Keys,
        *,
        shuffle_buffer: int,
        seed: int,
        epoch: int,
        reader: int,
        readers: int,
        rejects: Rejects,
        captioned: bool,
    ) -> None:
        self.keys, self.rejects, self.captioned = keys, rejects, captioned
        self.shuffle_buffer, self.seed, self.epoch = shuffle_buffer, seed, epoch
        self.reader, self.readers = reader, readers
        self.by_sample = len(shards) < readers
        order = list(shards)
        if shuffle_buffer:
            order.sort(key=lambda shard: _draw(seed, epoch, shard.url))
        self.shards = order if self.by_sample else order[reader::readers]
        self._all = [shard.url for shard in shards]
        self._given = 0
        self._next = Place(0, 0, 0)  # the first sample that was not read yet
        self._buffer: list[tuple[Place, Sample]] = []
        self._source = self._read(self._next)

    def __iter__(self) -> SampleStream:
        return self

    def __next__(self) -> Sample:
        while len(self._buffer) <= self.shuffle_buffer:
            found = next(self._source, None)
            if found is None:
                break
            self._buffer.append(found)
        if not self._buffer:
            raise StopIteration
        chosen = 0
        if self.shuffle_buffer:
            chosen = _draw(self.seed, self.epoch, f"{self.reader}/{self.readers}", self._given) % len(self._buffer)
        self._given += 1
        self._buffer[chosen], self._buffer[-1] = self._buffer[-1], self._buffer[chosen]
        return self._buffer.pop()[1]

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is, as JSON can hold it: three numbers for each sample in the buffer, and a few more."""
        return {
            "of": self._identity(),
            "given": self._given,
            "next": [self._next.shard, self._next.start, self._next.number],
            "buffer": [[place.shard, place.start, place.number] for place, _ in self._buffer],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to where a stream with the same arguments was. Samples in its buffer are read again from their places."""
        try:
            other, self._given = state["of"], int(state["given"])
            following = Place(*map(int, state["next"]))
            waiting = [Place(*map(int, place)) for place in state["buffer"]]
        except (KeyError, TypeError, ValueError):
            raise DataError("the state of a stream is not one; expected what state_dict() gave") from None
        for name, value in self._identity().items():
            if other.get(name) != value:
                raise DataError(f"the state of a stream has {name} {other.get(name)}; expected {value}, as it was then")
        self._next = following
        self._buffer = [(place, self._again(place)) for place in waiting]
        self._source = self._read(following)

    def _identity(self) -> dict[str, Any]:
        """What two streams must share so that one can go on for the other."""
        digest = hashlib.blake2b("\n".join([*self._all, repr(self.keys)]).encode("utf-8", "replace"), digest_size=8)
        return {
            "shards": digest.hexdigest(),
            "seed": self.seed,
            "epoch": self.epoch,
            "reader": self.reader,
            "readers": self.readers,
            "shuffle_buffer": self.shuffle_buffer,
            "captioned": self.captioned,
        }

    def _read(self, first: Place) -> Iterator[tuple[Place, Sample]]:
        """This reader's samples in order, from a place on. `self._next` is kept up with what was read."""
        number, start = first.number, first.start
        for position in range(first.shard, len(self.shards)):
            shard = self.shards[position]
            for group, end in self._groups(shard, start):
                place = Place(position, group.start, number)
                number += 1
                self._next = Place(position, end, number) if end else Place(position + 1, 0, number)
                if self.by_sample and place.number % self.readers != self.reader:
                    continue
                sample = self._sample(shard, group)
                if sample is not None:
                    yield place, sample
            start = 0
            self._next = Place(position + 1, 0, number)

    def _groups(self, shard: Shard, start: int) -> Iterator[tuple[Group, int]]:
        """The groups of a shard, each with where the next one begins (0 after the last)."""
        previous: Group | None = None
        for found in self._walk(shard, start):
            if isinstance(found, Member):
                if not self.by_sample or self.reader == 0:
                    reject(self.rejects, shard, found.name, found.problem)
                continue
            if previous is not None:
                yield previous, found.start
            previous = found
        if previous is not None:
            yield previous, 0

    def _walk(self, shard: Shard, start: int) -> Iterator[Group | Member]:
        try:
            with _opened(shard) as (file, length):
                yield from groups(file, self.keys, length, start, images=True)
        except (OSError, DataError) as error:
            yield Member("", 0, 0, 0, f"can't be read ({getattr(error, 'strerror', None) or error})")

    def _again(self, place: Place) -> Sample:
        """A sample that was read before."""
        if place.shard < len(self.shards):
            shard = self.shards[place.shard]
            found = next(self._walk(shard, place.start), None)
            if isinstance(found, Group) and (sample := self._sample(shard, found)) is not None:
                return sample
            raise DataError(f"{shard.label}: the sample at byte {place.start} has gone since the stream stopped")
        raise DataError(f"the state of a stream names shard {place.shard} of {len(self.shards)}")

    def _sample(self, shard: Shard, group: Group) -> Sample | None:
        """A group as a sample; None, and a reject, if it can't be one."""
        captions: tuple[str, ...] = ()
        try:
            image = self.keys.image(group.parts)
        except ValueError as error:
            reject(self.rejects, shard, group.parts[0].name, str(error))
            return None
        try:
            captions = self.keys.caption(group.parts, image, loosely=True)[2]
        except ValueError as error:
            if self.captioned:
                reject(self.rejects, shard, image.name, str(error))
                return None
        if image.data is None:
            reject(self.rejects, shard, image.name, f"belongs to a sample of over {LARGEST_MEMBER} bytes")
            return None
        return Sample(shard.prefix + image.name, image.data, captions, f"{shard.name}:{image.name}")


@contextmanager
def _opened(shard: Shard) -> Iterator[tuple[Bytes, int | None]]:
    """A shard to read, and its length where it is known."""
    if is_remote(shard.url):
        with RemoteFile(shard.url) as remote:
            yield remote, remote.length
    else:
        with open_file(shard.url, _BUFFER) as file:
            yield file, os.fstat(file.fileno()).st_size


def _draw(*parts: object) -> int:
    """A number of 64 bits made of these alone: the same on every machine."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big")

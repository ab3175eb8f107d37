"""Sources to encode, cut into parts: a tar shard is one or several parts, any other data set is cut into blocks of samples.

A part's samples, in their order, are decided by the source alone, so that each part can be done by itself, in any order, on any
machine, with the same bytes as a result.
"""

from __future__ import annotations

import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from captrain.data.absolute_paths import OutsidePicture
from captrain.data.dataset import read_splits
from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.data.readers.detection import detect
from captrain.data.safe_paths import is_remote
from captrain.data.samples import key_of
from captrain.data.shards.members import Keys
from captrain.data.shards.remote import told_error
from captrain.data.shards.sources import TarShard, expand, reject
from captrain.data.shards.stream import IN_ORDER, SampleStream
from captrain.records import Rejects, Sample

UNREAD = "can't be read"
"""How the reason begins if a shard could not be read, or not to its end: the cause may be temporary."""


@dataclass(frozen=True, slots=True)
class End:
    """The end of a part: its number, whether it is its source's last, what was rejected, and whether reading failed."""

    part: int
    last: bool
    rejects: Rejects
    unread: bool = False


class EncodingSource(ABC):
    """Something that gives parts of at most `size` samples each.

    `name` begins the names of its output shards; `label` is for people; `fingerprint` changes when the source does.
    """

    name: str
    label: str
    split: str

    @cached_property
    def fingerprint(self) -> str:
        """Text that tells whether the source is unchanged; computed once."""
        return self._look()

    @abstractmethod
    def _look(self) -> str:
        """The fingerprint as it is now."""

    @abstractmethod
    def parts(self, size: int) -> Iterator[Sample | End]:
        """The samples of all parts, each part closed by its `End`; at least one part."""


class TarSource(EncodingSource):
    """One tar shard, local or behind a URL, read once from front to back."""

    def __init__(self, shard: TarShard, split: str, options: ReadOptions, captioned: bool) -> None:
        self.shard, self.split, self.options, self.captioned = shard, split, options, captioned
        self.name, self.label = file_safe_name(shard.name.removesuffix(".tar")), shard.name

    def _look(self) -> str:
        """Size and time of change, or what a store behind a URL states instead of a time."""
        if not is_remote(self.shard.url):
            facts = os.stat(self.shard.url)
            return f"{facts.st_size} bytes, {facts.st_mtime_ns}"
        import fsspec.core

        with told_error(self.shard.url):
            system, path = fsspec.core.url_to_fs(self.shard.url)
            info: dict[str, Any] = system.info(path)
        tags = [str(info[name]) for name in ("ETag", "etag", "LastModified", "mtime", "updated") if info.get(name)]
        return ", ".join([f"{info.get('size')} bytes", *tags])

    def parts(self, size: int) -> Iterator[Sample | End]:
        """Parts of the tar. A sample whose name came before in it is rejected."""
        rejects = Rejects()
        stream = SampleStream([self.shard], Keys.of(self.options), rejects, order=IN_ORDER, captioned=self.captioned)
        part = count = 0
        for sample in self._once(stream, rejects):
            if count == size:
                yield End(part, False, _taken(rejects))
                part, count = part + 1, 0
            yield sample
            count += 1
        failed = any(line["id"] == self.shard.name and line["reason"].startswith(UNREAD) for line in rejects.lines)
        yield End(part, True, _taken(rejects), failed)

    def _once(self, stream: SampleStream, rejects: Rejects) -> Iterator[Sample]:
        met: set[int] = set()
        for sample in stream:
            if (key := key_of(sample.id)) in met:
                name = sample.id.removeprefix(self.shard.prefix)
                reject(rejects, self.shard, name, "has the name of an earlier sample of its shard")
                continue
            met.add(key)
            yield sample


class BlockSource(EncodingSource):
    """A block of the samples of a data set that is no tar."""

    def __init__(self, samples: Sequence[Sample], split: str, number: int, start: int, stop: int) -> None:
        self.samples, self.split, self.start, self.stop = samples, split, start, stop
        self.name, self.label = f"{file_safe_name(split)}-{number:05d}", f"{split}[{start}:{stop}]"

    def _look(self) -> str:
        """A digest of ids, captions, and sizes and times of files."""
        digest = hashlib.blake2b(digest_size=16)
        for index in range(self.start, self.stop):
            sample = self.samples[index]
            digest.update(repr((sample.id, sample.captions, _facts(sample))).encode("utf-8", "backslashreplace"))
        return digest.hexdigest()

    def parts(self, size: int) -> Iterator[Sample | End]:
        """One part."""
        for index in range(self.start, self.stop):
            yield self.samples[index]
        yield End(0, True, Rejects())


def sources_of(
    data: str,
    size: int,
    rejects: Rejects,
    format: str | None = None,
    options: ReadOptions = BY_LOOKING,
    *,
    captioned: bool = True,
) -> list[EncodingSource]:
    """What a data set consists of, in its order. What can't be used in a data set that is no tar goes to `rejects` now.

    Raises `DataError` as readers do: for what is not there, `pipe:` URLs and the like.
    """
    if (format or detect(data, options)) == "webdataset":
        shards = expand(data, rejects, follow_links=options.follow_links)
        splits = [shard.split for shard in shards]
        named = all(splits)
        return [
            TarSource(shard, str(split) if named else "all", options, captioned)
            for shard, split in zip(shards, splits, strict=True)
        ]
    found: list[EncodingSource] = []
    for split, samples in read_splits(data, rejects, format, options, captioned=captioned).items():
        for number, start in enumerate(range(0, len(samples), size)):
            found.append(BlockSource(samples, split, number, start, min(start + size, len(samples))))
    return found


def file_safe_name(name: str) -> str:
    """A file name that is valid everywhere; a changed name gets a digest, so that it stays unique.

    >>> file_safe_name("00000"), file_safe_name("train/00000")
    ('00000', 'train-00000-540bc2d6')
    """
    safe = re.sub(r"[^A-Za-z0-9_.-]", "-", name).lstrip(".-")[:100] or "shard"
    if safe == name:
        return name
    return f"{safe}-{hashlib.blake2b(name.encode('utf-8', 'backslashreplace'), digest_size=4).hexdigest()}"


def _facts(sample: Sample) -> str:
    """What tells whether a sample's picture is unchanged."""
    file = sample.image.path if isinstance(sample.image, OutsidePicture) else sample.image
    if isinstance(file, Path):
        try:
            facts = file.stat()
            return f"{facts.st_size} {facts.st_mtime_ns}"
        except OSError:
            return "not there"
    if isinstance(sample.image, bytes):
        return hashlib.blake2b(sample.image, digest_size=16).hexdigest()
    return str(sample.image)


def _taken(rejects: Rejects) -> Rejects:
    """Remove and return what was rejected so far."""
    taken = Rejects(list(rejects.lines))
    rejects.lines.clear()
    return taken

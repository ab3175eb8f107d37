"""One worker of a cluster: it has the encoder, encodes a source at a time, and writes its shards into the store itself.

Needs no Ray: `ray_engine` makes an actor of it.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from copy import copy
from dataclasses import dataclass

from captrain.data.feature_store.folder import StoreFolder
from captrain.data.feature_store.manifest import LARGEST, MANIFEST, ShardNote, parse_shard, record_file
from captrain.errors import DataError
from captrain.features.encoder import Encoder
from captrain.features.engines.base import About, Opening
from captrain.features.pipeline import Behind, Skip, part_name
from captrain.features.pipeline import Engine as Pipeline
from captrain.features.sources import BlockSource, End, Source
from captrain.features.writing import Shard, StoreWriter


@dataclass(frozen=True, slots=True)
class Order:
    """What is the same for all sources: the store's writer, how to encode, most pictures of a part."""

    writer: StoreWriter
    pipeline: Pipeline
    size: int

    @classmethod
    def of(cls, writer: StoreWriter, pipeline: Pipeline, size: int) -> Order:
        """With a writer that knows no shards: of a large store they are many, and a worker needs those of one source."""
        bare = copy(writer)
        bare.done, bare.manifest = {}, writer.manifest.with_shards([], complete=False)
        return cls(bare, pipeline, size)


class Worker:
    """Lives in a process of its own, in `folder` if its machine has that: paths may be relative to it."""

    def __init__(self, opening: Opening, device: str, folder: str) -> None:
        self.opening, self.device = opening, device
        self.encoder: Encoder | None = None
        with suppress(OSError):
            os.chdir(folder)

    def open(self, expected: About | None = None) -> About:
        """Open the encoder and say what it is. Raises `ModelError` if it is not the one that is expected."""
        self.encoder = self.opening.open(self.device)
        if expected is not None:
            expected.check(self.encoder, f"a worker on {socket.gethostname()}")
        return About.of(self.encoder)

    def encode(self, order: Order, source: Source, known: frozenset[str]) -> list[ShardNote | End]:
        """Encode a source without its `known` shards; what a worker that died has finished of it is not done again.

        Gives the records of all other shards, in order, and the `End` of a part that can't be read.
        """
        assert self.encoder is not None, "open() comes first"
        _check_shared(order.writer.folder)
        made: list[ShardNote | End] = list(before := finished(order.writer.folder, source, known))
        if before and before[-1].last:
            return made
        there = known | {note.name for note in before}

        def skip(source: Source, part: int) -> bool:
            return part_name(source, part) in there

        def write(shard: Shard) -> None:
            made.append(order.writer.write(shard))

        ends: list[End] = []
        with Behind(write) as behind:
            for _, part in order.pipeline.shards(self.encoder, [source], order.size, skip):
                if isinstance(part, End):
                    ends.append(part)
                else:
                    behind(part)
        return made + ends


def finished(folder: StoreFolder, source: Source, known: frozenset[str]) -> list[ShardNote]:
    """Records that the store has of a source's shards, beyond those `known`, as long as the source is what it was."""
    found: list[ShardNote] = []
    while folder.exists(record := record_file(part_name(source, len(known) + len(found)))):
        note = parse_shard(folder.read(record, LARGEST), folder.where(record))
        if note.fingerprint != source.fingerprint:
            break
        found.append(note)
    return found


def alone(source: Source) -> Source:
    """A source that carries its own samples and not all those of its data set: it is sent to another machine."""
    if not isinstance(source, BlockSource):
        return source
    block = copy(source)
    block.samples = [source.samples[index] for index in range(source.start, source.stop)]
    block.start, block.stop = 0, len(block.samples)
    return block


def known_of(source: Source, skip: Skip) -> frozenset[str]:
    """The names of a source's shards that are there, from the first on without a gap."""
    count = 0
    while skip(source, count):
        count += 1
    return frozenset(part_name(source, part) for part in range(count))


def _check_shared(folder: StoreFolder) -> None:
    if not folder.exists(MANIFEST):
        raise DataError(
            f"{folder.label}: can't be seen from {socket.gethostname()}; expected a folder that all machines share, or a URL"
        )

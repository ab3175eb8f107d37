"""`captrain encode` as a function: the features of any data set, computed once into a store."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from captrain.data.feature_store.folder import StoreFolder
from captrain.data.feature_store.manifest import REJECTED, FeaturesNote, Manifest, ShardNote
from captrain.data.images import MAX_PIXELS
from captrain.data.readers.options import BY_LOOKING, ReadOptions
from captrain.errors import DataError
from captrain.features.content import PREPARATION_VERSION
from captrain.features.encoder import Encoder, Vectors
from captrain.features.engines import make_engine
from captrain.features.engines.base import About, Engine, Opening, Work
from captrain.features.pipeline import Engine as Pipeline
from captrain.features.pipeline import part_name
from captrain.features.sources import End, Source, sources_of
from captrain.features.writing import Shard, StoreWriter, locked
from captrain.models.preparation import Resize
from captrain.progress import track
from captrain.records import Rejects

logger = logging.getLogger(__name__)

Dtype = Literal["auto", "bfloat16", "float16", "float32"]
SHARD_BYTES = 256 << 20
MOST_IMAGES = 16384  # of a shard
SHOWN = 3


@dataclass(frozen=True, slots=True)
class Encoded:
    """What an encoding left: totals of the store, where rejects are listed, sources that could not be read, shards done now."""

    store: str
    counts: dict[str, int]
    rejects_file: str | None
    unread: tuple[str, ...]
    shards_done: int


def encode(
    data: str,
    store: str,
    encoder: str,
    *,
    vectors: Vectors = "all",
    normalize: bool = False,
    dtype: Dtype = "auto",
    image_size: int | None = None,
    resize: Resize | None = None,
    captioned: bool = True,
    max_words: int | None = None,
    shard_images: int | None = None,
    batch_size: int = 32,
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
    devices: Sequence[str] = ("auto",),
    precision: str = "auto",
    redo_changed: bool = False,
    engine: str = "local",
    address: str | None = None,
    format: str | None = None,
    options: ReadOptions = BY_LOOKING,
) -> Encoded:
    """Compute the features of all pictures of `data` into `store`; what is there from an earlier start is not done again.

    Started again after any interruption, the same call leaves the same bytes as if it had not been interrupted.

    Args:
        data: anything captrain reads. store: a folder or URL. encoder: a folder or hub id.
        normalize: divide each vector by its L2 norm.
        dtype: of kept numbers; `auto` is bfloat16 where bf16 computes, else float16.
        captioned: reject pictures without captions. max_words: cut captions after so many words.
        shard_images: most pictures of a shard. Default: what makes 256 MiB.
        devices: one encoder on each, every one with sources of its own.
        redo_changed: encode sources again that changed since an earlier start, instead of refusing.
        engine: `local`, or `ray` for all machines of a Ray cluster, which must see data, encoder and store alike.
        address: of that cluster, HOST:PORT or `auto`. Default: Ray on this machine alone.

    Raises:
        UserError: for data, encoders or stores that can't work together, a source that changed, a store that is being written.
        OSError: when the disk is full; everything finished before is intact.
    """
    opening = Opening(encoder, vectors, normalize, image_size, resize, precision)
    folder = StoreFolder(store)
    with make_engine(engine, opening, devices, address) as runner:
        about = runner.about()
        kind = about.kind(dtype)
        features = about.features(kind)
        size = shard_images or images_of(features)
        with locked(folder):
            rejects = Rejects()
            sources = sources_of(data, size, rejects, format, options, captioned=captioned)
            writer = StoreWriter(folder, first_manifest(about, features, captioned, max_words, size))
            _settle_changes(writer, sources, redo_changed)
            job = Job(writer, Pipeline(kind, batch_size, workers, max_pixels, max_words), size, sources)
            job.run(runner)
            manifest = writer.finish(job.names(), rejects, job.unread())
    if not manifest.counts()["images"]:
        raise DataError(f"{data}: no picture could be encoded; {folder.where(REJECTED)} lists why")
    listed = folder.where(REJECTED) if manifest.counts()["rejected"] else None
    return Encoded(folder.label, manifest.counts(), listed, manifest.unread, job.count)


def images_of(features: FeaturesNote) -> int:
    """How many images a shard holds at most.

    >>> images_of(FeaturesNote(tokens=257, width=1024, dtype="float16", vectors="all"))
    510
    """
    return max(1, min(MOST_IMAGES, SHARD_BYTES // features.row_bytes))


def first_manifest(
    encoder: Encoder | About, features: FeaturesNote, captioned: bool, max_words: int | None, size: int
) -> Manifest:
    """What a store says before it has a shard."""
    return Manifest(
        complete=False, encoder=encoder.note, preparation=encoder.spec.to_dict(), preparation_version=PREPARATION_VERSION,
        features=features, captioned=captioned, max_words=max_words, shard_images=size,
    )  # fmt: skip


class Job:
    """The encoding of some sources into one store, on any engine."""

    def __init__(self, writer: StoreWriter, pipeline: Pipeline, size: int, sources: Sequence[Source]) -> None:
        self.writer, self.pipeline, self.size, self.sources = writer, pipeline, size, sources
        self.count = 0
        self._unread: set[str] = set()
        self._before = {name for name in writer.done}

    def run(self, engine: Engine) -> None:
        """Do all that is not done."""
        waiting = [source for source in self.sources if not self._is_done(source)]
        if skipped := len(self.sources) - len(waiting):
            logger.info("%d of %d sources are done already", skipped, len(self.sources))
        with track("encode shards", len(waiting), "source") as advance:

            def tell(source: Source, made: Shard | ShardNote | End) -> None:
                self._count(source, made)
                advance(int(made.last))

            engine.run(Work(self.writer, self.pipeline, self.size, waiting, self._skips, tell))

    def unread(self) -> tuple[str, ...]:
        """Labels of the sources that could not be read (to the end), in the order of sources."""
        return tuple(source.label for source in self.sources if source.name in self._unread)

    def names(self) -> list[str]:
        """Names of all shards, in the order of sources and parts; what an unread source gave before is kept."""
        return [name for source in self.sources for name in part_names(self.writer, source)]

    def _count(self, source: Source, made: Shard | ShardNote | End) -> None:
        if isinstance(made, End):
            self._unread.add(source.name)
            first = made.rejects.lines[-1]["reason"]
            logger.warning("%s: %s; the same command tries it again", source.label, first)
        else:
            self.count += 1

    def _is_done(self, source: Source) -> bool:
        names = part_names(self.writer, source)
        return bool(names) and self.writer.done[names[-1]].last

    def _skips(self, source: Source, part: int) -> bool:
        return part_name(source, part) in self._before


def part_names(writer: StoreWriter, source: Source) -> list[str]:
    """The shards of a source that are done, without a gap from the first."""
    names: list[str] = []
    while (name := part_name(source, len(names))) in writer.done:
        names.append(name)
        if writer.done[name].last:
            break
    return names


def _settle_changes(writer: StoreWriter, sources: Sequence[Source], redo: bool) -> None:
    """Look for sources that changed since they were encoded, and for shards of sources that are not named any more."""
    changed: list[Source] = []
    for source in sources:
        names = part_names(writer, source)
        if names and any(writer.done[name].fingerprint != source.fingerprint for name in names):
            changed.append(source)
    known = {source.name for source in sources}
    others = [shard.source for name, shard in writer.done.items() if name.rpartition(".")[0] not in known]
    if others:
        raise DataError(
            f"{writer.folder.label}: holds shards of {_listed(others)}, which the data does not have; name all data that the "
            "store is of, or choose another folder"
        )
    if changed and not redo:
        raise DataError(
            f"{_listed([source.label for source in changed])}: changed since {writer.folder.label} took it in; "
            "--redo-changed encodes it again"
        )
    if changed:
        names = [name for name in writer.done for source in changed if name.rpartition(".")[0] == source.name]
        logger.info("%s changed and is encoded again", _listed([source.label for source in changed]))
        writer.forget(names)


def _listed(labels: Sequence[str]) -> str:
    unique = list(dict.fromkeys(labels))
    more = f" and {len(unique) - SHOWN} more" if len(unique) > SHOWN else ""
    return ", ".join(unique[:SHOWN]) + more

"""`captrain encode` as a function: the features of any data set, computed once into a store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Literal

from captrain.data.feature_store.folder import StoreFolder
from captrain.data.feature_store.manifest import REJECTED, FeaturesNote, Manifest
from captrain.data.images import MAX_PIXELS
from captrain.data.readers.options import BY_LOOKING, ReadOptions
from captrain.errors import DataError
from captrain.features.content import PREPARATION_VERSION
from captrain.features.encoder import Encoder, Vectors, on_device, open_encoder
from captrain.features.pipeline import Behind, Engine, part_name
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

    Raises:
        UserError: for data, encoders or stores that can't work together, a source that changed, a store that is being written.
        OSError: when the disk is full; everything finished before is intact.
    """
    model = open_encoder(
        encoder, vectors=vectors, normalize=normalize, image_size=image_size, resize=resize, device=devices[0].partition(":")[0],
        precision=precision,
    )  # fmt: skip
    models = [on_device(model, device) if len(devices) > 1 or ":" in device else model for device in devices]
    kind = ("bfloat16" if str(model.precision) == "torch.bfloat16" else "float16") if dtype == "auto" else dtype
    features = model.features(kind)
    size = shard_images or images_of(features)
    engine = Engine(kind, batch_size, workers, max_pixels, max_words)
    folder = StoreFolder(store)
    with locked(folder):
        rejects = Rejects()
        sources = sources_of(data, size, rejects, format, options, captioned=captioned)
        writer = StoreWriter(folder, first_manifest(model, features, captioned, max_words, size))
        _settle_changes(writer, sources, redo_changed)
        job = Job(writer, engine, size, sources)
        job.run(models)
        manifest = writer.finish(job.names(), rejects, tuple(job.unread))
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
    encoder: Encoder, features: FeaturesNote, captioned: bool, max_words: int | None, size: int
) -> Manifest:
    """What a store says before it has a shard."""
    return Manifest(
        complete=False, encoder=encoder.note, preparation=encoder.spec.to_dict(), preparation_version=PREPARATION_VERSION,
        features=features, captioned=captioned, max_words=max_words, shard_images=size,
    )  # fmt: skip


class Job:
    """The encoding of some sources into one store, on one or several devices."""

    def __init__(self, writer: StoreWriter, engine: Engine, size: int, sources: Sequence[Source]) -> None:
        self.writer, self.engine, self.size, self.sources = writer, engine, size, sources
        self.unread: list[str] = []
        self.count = 0
        self._before = {name for name in writer.done}
        self._lock = Lock()

    def run(self, encoders: Sequence[Encoder]) -> None:
        """Do all that is not done."""
        waiting = [source for source in self.sources if not self._is_done(source)]
        if skipped := len(self.sources) - len(waiting):
            logger.info("%d of %d sources are done already", skipped, len(self.sources))
        queue = iter(waiting)
        with track("encode shards", len(waiting), "source") as advance, Behind(self.writer.write) as write:

            def work(encoder: Encoder) -> None:
                for source, made in self.engine.shards(encoder, self._dealt(queue), self.size, self._skips):
                    with self._lock:
                        self._take(source, made, write)
                        advance(int(made.last))

            if len(encoders) == 1:
                work(encoders[0])
            else:
                _together(work, encoders)

    def names(self) -> list[str]:
        """Names of all shards, in the order of sources and parts; what an unread source gave before is kept."""
        return [name for source in self.sources for name in part_names(self.writer, source)]

    def _take(self, source: Source, made: Shard | End, write: Behind) -> None:
        if isinstance(made, End):
            self.unread.append(source.label)
            first = made.rejects.lines[-1]["reason"]
            logger.warning("%s: %s; the same command tries it again", source.label, first)
        else:
            self.count += 1
            write(made)

    def _dealt(self, queue: Iterator[Source]) -> Iterator[Source]:
        """The next source that no other device has taken."""
        while True:
            with self._lock:
                source = next(queue, None)
            if source is None:
                return
            yield source

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


def _together(work: Callable[[Encoder], None], encoders: Sequence[Encoder]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(encoders)) as pool:
        for done in [pool.submit(work, encoder) for encoder in encoders]:
            done.result()

"""`captrain encode` as a function: the features of any data set, computed once into a store.

Encoding as engines do it: how an encoder is opened, and shards of features written into a store.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Literal

from captrain.data.feature_store.folder import StoreFolder
from captrain.data.feature_store.manifest import (
    LARGEST,
    MANIFEST,
    REJECTED,
    EncoderNote,
    FeaturesNote,
    Manifest,
    ShardNote,
    parse_shard,
    record_file,
)
from captrain.data.feature_store.writer import Shard, StoreWriter, images_of, locked
from captrain.data.images import MAX_PIXELS, Decode, ImageSpec
from captrain.data.machine import MACHINE
from captrain.data.options import BY_LOOKING, ReadOptions
from captrain.errors import DataError, SettingsError
from captrain.features.encoder import PREPARATION_VERSION, Encoder, Vectors, check_same, on_device, open_encoder
from captrain.features.engines import base, make_engine
from captrain.features.engines.base import Job, changed_sources, parts_of
from captrain.features.pipeline import Pipeline, Skip
from captrain.features.sources import End, Source, sources_of
from captrain.models.checkpoint.image_preparation import Resize
from captrain.models.device import PRECISIONS
from captrain.records import Rejects
from captrain.settings.load import check
from captrain.settings.schema import ComputingSettings, DataSettings

logger = logging.getLogger(__name__)

Dtype = Literal["auto", "bfloat16", "float16", "float32"]
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
    decode: Decode | None = None,
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
    check(ComputingSettings, batch_size=batch_size, workers=workers, max_pixels=max_pixels)
    check(DataSettings, max_words=max_words)
    if shard_images is not None and shard_images < 1:
        raise SettingsError(f"shard_images: found {shard_images}, expected at least 1")
    opening = Opening(encoder, vectors, normalize, image_size, resize, decode, precision)
    folder = StoreFolder(store)
    with make_engine(engine, opening, devices, address) as runner:
        about = runner.about()
        kind = about.kind(dtype)
        features = about.features(kind)
        size = shard_images or images_of(features)
        with locked(folder):
            rejects = Rejects()
            by_persons = replace(options, machine_captions=False)  # a store does not say who wrote a caption
            sources = sources_of(data, size, rejects, format, by_persons, captioned=captioned)
            writer = StoreWriter(folder, first_manifest(about, features, captioned, max_words, size))
            _settle_changes(writer, sources, redo_changed)
            pipeline = Pipeline(kind, batch_size, workers, max_pixels, max_words)
            job = Job("encode shards", Encoding(writer, pipeline, size), sources)
            job.run(runner)
            manifest = writer.finish(job.names(), rejects, job.unread())
    if made := rejects.remarked(MACHINE):
        logger.warning(
            "captions that captrain wrote, of %d pictures, are left out: a store can't tell them from others", made
        )
    if not manifest.counts()["images"]:
        raise DataError(f"{data}: no picture could be encoded; {folder.where(REJECTED)} lists why")
    listed = folder.where(REJECTED) if manifest.counts()["rejected"] else None
    return Encoded(folder.label, manifest.counts(), listed, manifest.unread, job.count)


def first_manifest(
    encoder: Encoder | About, features: FeaturesNote, captioned: bool, max_words: int | None, size: int
) -> Manifest:
    """What a store says before it has a shard."""
    return Manifest(
        complete=False, encoder=encoder.note, preparation=encoder.spec.to_dict(), preparation_version=PREPARATION_VERSION,
        features=features, captioned=captioned, max_words=max_words, shard_images=size,
    )  # fmt: skip


def _settle_changes(writer: StoreWriter, sources: Sequence[Source], redo: bool) -> None:
    """Look for sources that changed since they were encoded, and for shards of sources that are not named any more."""
    known = set(parts_of(writer.done, sources))
    others = [shard.source for name, shard in writer.done.items() if name not in known]
    if others:
        raise DataError(
            f"{writer.folder.label}: holds shards of {_listed(others)}, which the data does not have; name all data that the "
            "store is of, or choose another folder"
        )
    changed = changed_sources(writer.done, sources)
    if changed and not redo:
        raise DataError(
            f"{_listed([source.label for source in changed])}: changed since {writer.folder.label} took it in; "
            "--redo-changed encodes it again"
        )
    if changed:
        logger.info("%s changed and is encoded again", _listed([source.label for source in changed]))
        writer.forget(parts_of(writer.done, changed))


def _listed(labels: Sequence[str]) -> str:
    unique = list(dict.fromkeys(labels))
    more = f" and {len(unique) - SHOWN} more" if len(unique) > SHOWN else ""
    return ", ".join(unique[:SHOWN]) + more


@dataclass(frozen=True, slots=True)
class About:
    """What decides an encoder's vectors. `shape` is what its features look like, whatever kind of number is kept."""

    note: EncoderNote
    spec: ImageSpec
    precision: str
    shape: FeaturesNote

    @classmethod
    def of(cls, encoder: Encoder) -> About:
        """Found by encoding a black picture."""
        precision = next(name for name, kind in PRECISIONS.items() if kind == encoder.precision)
        return cls(encoder.note, encoder.spec, precision, encoder.features("float32"))

    def kind(self, wanted: str) -> str:
        """The kind of number to keep; `auto` is bfloat16 where bf16 computes, else float16."""
        return wanted if wanted != "auto" else "bfloat16" if self.precision == "bf16" else "float16"

    def features(self, dtype: str) -> FeaturesNote:
        """The features when kept as numbers of this kind."""
        return self.shape.model_copy(update={"dtype": dtype})


@dataclass(frozen=True, slots=True)
class Opening(base.Opening[Encoder, About]):
    """How an encoder is opened: options of `open_encoder` other than the device."""

    encoder: str
    vectors: Vectors = "all"
    normalize: bool = False
    image_size: int | None = None
    resize: Resize | None = None
    decode: Decode | None = None
    precision: str = "auto"

    def open(self, device: str) -> Encoder:
        """The encoder on a device. Raises `ModelError` if there is none."""
        return open_encoder(
            self.encoder, vectors=self.vectors, normalize=self.normalize, image_size=self.image_size, resize=self.resize,
            decode=self.decode, device=device, precision=self.precision,
        )  # fmt: skip

    def copy(self, model: Encoder, device: str) -> Encoder:
        """The same encoder on another device."""
        return on_device(model, device)

    def about(self, model: Encoder) -> About:
        """What decides its vectors."""
        return About.of(model)

    def settled(self, about: About) -> Opening:
        """Whatever is opened from now on computes as the first encoder does."""
        return replace(self, precision=about.precision)

    def check(self, about: About, model: Encoder, where: str) -> None:
        """Raise `ModelError` if an encoder that was opened on another machine is another one."""
        check_same(where, about.note, model.note.name, model.note.weights)


@dataclass(frozen=True, slots=True)
class Encoding(base.Order[Encoder]):
    """Features of sources into a store: its writer, how to encode, most pictures of a shard."""

    writer: StoreWriter
    pipeline: Pipeline
    size: int

    @property
    def done(self) -> dict[str, ShardNote]:
        """Records of the store's shards."""
        return self.writer.done

    def parts(self, model: Encoder, sources: Iterable[Source], skip: Skip) -> Iterator[tuple[Source, Shard | End]]:
        """Finished shards in memory."""
        return self.pipeline.shards(model, sources, self.size, skip)

    def write(self, part: Shard) -> ShardNote:
        """Write a shard's files, and last its record."""
        return self.writer.write(part)

    def find(self, name: str) -> ShardNote | None:
        """The record of a shard that is in the store."""
        folder, record = self.writer.folder, record_file(name)
        return parse_shard(folder.read(record, LARGEST), folder.where(record)) if folder.exists(record) else None

    def for_worker(self, cores: int) -> Encoding:
        """With a writer that knows no shards: of a large store they are many, and a worker needs those of one source."""
        bare = copy(self.writer)
        bare.done, bare.manifest = {}, self.writer.manifest.with_shards([], complete=False)
        workers = cores if self.pipeline.workers is None else self.pipeline.workers
        return Encoding(bare, replace(self.pipeline, workers=workers), self.size)

    def check_shared(self) -> None:
        """Raise `DataError` if this machine does not see the store."""
        folder = self.writer.folder
        if not folder.exists(MANIFEST):
            raise DataError(
                f"{folder.label}: can't be seen from {socket.gethostname()}; expected a folder that all machines share, or a URL"
            )

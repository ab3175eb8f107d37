"""Compute the features of a data set once, into a store: the work behind `captrain encode`.

Engines do the work. `EncoderOpening` tells them how an encoder is opened, and `Encoding` makes the shards of features and
writes them into the store.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Literal

from captrain.data.feature_store.layout import (
    LARGEST,
    MANIFEST,
    REJECTED,
    EncoderNote,
    FeaturesNote,
    Manifest,
    ShardNote,
    StoreFolder,
    parse_shard,
    record_file,
)
from captrain.data.feature_store.store import FeatureStore
from captrain.data.feature_store.writer import FeatureShard, StoreWriter, images_a_shard, locked_store
from captrain.data.images import Decode, ImageSpec
from captrain.data.machine_captions import MACHINE
from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.errors import DataError, SettingsError
from captrain.features.encoder import PREPARATION_VERSION, Encoder, Vectors, check_same_encoder, on_device, open_encoder
from captrain.features.engines import (
    EngineJob,
    EngineOptions,
    ModelOpening,
    PartsOrder,
    changed_sources,
    make_engine,
    parts_of_sources,
)
from captrain.features.pipeline import Pipeline, Skip
from captrain.features.sources import EncodingSource, End, sources_of
from captrain.features.stream import Batching
from captrain.models.checkpoint.image_preparation import Resize
from captrain.models.device import PRECISIONS
from captrain.records import Rejects
from captrain.settings.load import check_settings
from captrain.settings.schema import DataSettings

logger = logging.getLogger(__name__)

Dtype = Literal["auto", "bfloat16", "float16", "float32"]
SHOWN = 3
BATCH = 32  # pictures encoded at a time


@dataclass(frozen=True, slots=True)
class Encoded:
    """The result of encoding: totals of the store, the list of rejects, sources that could not be read, shards made now."""

    store: str
    counts: dict[str, int]
    rejects_file: str | None
    unread: tuple[str, ...]
    shards_done: int

    def __fspath__(self) -> str:
        """The store is taken wherever a path to data is."""
        return self.store

    def open(self) -> FeatureStore:
        """Open the store to read vectors and samples."""
        return FeatureStore(self.store)


@dataclass(frozen=True, slots=True)
class StoreContent:
    """What a store holds for each picture.

    dtype: of the kept numbers; `auto` is bfloat16 where bf16 computes, else float16.
    captioned: reject pictures without captions. max_words: cut captions after so many words.
    shard_images: most pictures of a shard; None for what makes 256 MiB.
    redo_changed: encode changed sources again instead of refusing.
    """

    dtype: Dtype = "auto"
    captioned: bool = True
    max_words: int | None = None
    shard_images: int | None = None
    redo_changed: bool = False

    def __post_init__(self) -> None:
        check_settings(DataSettings, max_words=self.max_words)
        if self.shard_images is not None and self.shard_images < 1:
            raise SettingsError(f"shard_images: found {self.shard_images}, expected at least 1")


def encode(
    data: str,
    store: str,
    opening: EncoderOpening,
    *,
    content: StoreContent | None = None,
    batching: Batching | None = None,
    engine: EngineOptions | None = None,
    format: str | None = None,
    options: ReadOptions = BY_LOOKING,
) -> Encoded:
    """Compute the features of all pictures of `data` into `store`; what an earlier start has done is not done again.

    After any interruption, the same call completes the store, with the same bytes as without an interruption.

    Args:
        data: anything captrain reads. store: a folder or URL. opening: the encoder, and how it sees pictures.
        content: what is stored for each picture. batching: how pictures are decoded. engine: where they are encoded.

    Raises:
        UserError: for data, encoders or stores that can't work together, a source that changed, a store that is being written.
        OSError: when the disk is full; everything finished before is intact.
    """
    content, batching, folder = content or StoreContent(), batching or Batching(BATCH), StoreFolder(store)
    with make_engine(engine or EngineOptions(), opening) as runner:
        about = runner.about()
        kind = about.kind(content.dtype)
        features = about.features(kind)
        size = content.shard_images or images_a_shard(features)
        with locked_store(folder):
            rejects = Rejects()
            by_persons = replace(options, machine_captions=False)  # a store does not say who wrote a caption
            sources = sources_of(data, size, rejects, format, by_persons, captioned=content.captioned)
            writer = StoreWriter(folder, first_manifest(about, features, content.captioned, content.max_words, size))
            _settle_changes(writer, sources, content.redo_changed)
            pipeline = Pipeline(kind, batching.batch_size, batching.workers, batching.max_pixels, content.max_words)
            job = EngineJob("encode shards", Encoding(writer, pipeline, size), sources)
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
    encoder: Encoder | AboutEncoder, features: FeaturesNote, captioned: bool, max_words: int | None, size: int
) -> Manifest:
    """The manifest of a store without shards."""
    return Manifest(
        complete=False, encoder=encoder.note, preparation=encoder.spec.to_dict(), preparation_version=PREPARATION_VERSION,
        features=features, captioned=captioned, max_words=max_words, shard_images=size,
    )  # fmt: skip


def _settle_changes(writer: StoreWriter, sources: Sequence[EncodingSource], redo: bool) -> None:
    """Look for sources that changed since they were encoded, and for shards of sources that are not named any more."""
    known = set(parts_of_sources(writer.done, sources))
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
        writer.forget(parts_of_sources(writer.done, changed))


def _listed(labels: Sequence[str]) -> str:
    unique = list(dict.fromkeys(labels))
    more = f" and {len(unique) - SHOWN} more" if len(unique) > SHOWN else ""
    return ", ".join(unique[:SHOWN]) + more


@dataclass(frozen=True, slots=True)
class AboutEncoder:
    """What decides an encoder's vectors. `shape` is that of its features, whatever kind of number is stored."""

    note: EncoderNote
    spec: ImageSpec
    precision: str
    shape: FeaturesNote

    @classmethod
    def of(cls, encoder: Encoder) -> AboutEncoder:
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
class EncoderOpening(ModelOpening[Encoder, AboutEncoder]):
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
        """A copy of the encoder on another device."""
        return on_device(model, device)

    def about(self, model: Encoder) -> AboutEncoder:
        """Everything that decides its vectors."""
        return AboutEncoder.of(model)

    def settled(self, about: AboutEncoder) -> EncoderOpening:
        """Later openings compute in the precision of the first encoder."""
        return replace(self, precision=about.precision)

    def check(self, about: AboutEncoder, model: Encoder, where: str) -> None:
        """Raise `ModelError` if an encoder that was opened on another machine differs."""
        check_same_encoder(where, about.note, model.note.name, model.note.weights)


@dataclass(frozen=True, slots=True)
class Encoding(PartsOrder[Encoder]):
    """Encodes sources into a store: its writer, how to encode, the most pictures in a shard."""

    writer: StoreWriter
    pipeline: Pipeline
    size: int

    @property
    def done(self) -> dict[str, ShardNote]:
        """Records of the store's shards."""
        return self.writer.done

    def parts(
        self, model: Encoder, sources: Iterable[EncodingSource], skip: Skip
    ) -> Iterator[tuple[EncodingSource, FeatureShard | End]]:
        """Finished shards in memory."""
        return self.pipeline.shards(model, sources, self.size, skip)

    def write(self, part: FeatureShard) -> ShardNote:
        """Write a shard's files, and last its record."""
        return self.writer.write(part)

    def find(self, name: str) -> ShardNote | None:
        """The record of a shard that is in the store."""
        folder, record = self.writer.folder, record_file(name)
        return parse_shard(folder.read(record, LARGEST), folder.where(record)) if folder.exists(record) else None

    def for_worker(self, cores: int) -> Encoding:
        """The same with a writer that knows no shards: a large store has many, and a worker needs those of one source."""
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

"""Encoding as engines do it: how an encoder is opened, and shards of features written into a store."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass, replace

from captrain.data.feature_store.manifest import (
    LARGEST,
    MANIFEST,
    EncoderNote,
    FeaturesNote,
    ShardNote,
    parse_shard,
    record_file,
)
from captrain.data.images import Decode, ImageSpec
from captrain.errors import DataError
from captrain.features.encoder import Encoder, Vectors, check_same, on_device, open_encoder
from captrain.features.engines import base
from captrain.features.pipeline import Pipeline, Skip
from captrain.features.sources import End, Source
from captrain.features.writing import Shard, StoreWriter
from captrain.models.device import PRECISIONS
from captrain.models.preparation import Resize


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

"""What an engine is: it says what the encoder is, then encodes sources into a store and tells of each part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from captrain.data.feature_store.manifest import EncoderNote, FeaturesNote, ShardNote
from captrain.data.images import ImageSpec
from captrain.features.encoder import Encoder, Vectors, check_same, open_encoder
from captrain.features.pipeline import Engine as Pipeline
from captrain.features.pipeline import Skip
from captrain.features.sources import End, Source
from captrain.features.writing import Shard, StoreWriter
from captrain.models.preparation import Resize

Tell = Callable[[Source, "Shard | ShardNote | End"], None]
"""Called for each part that is done, or the `End` of one that can't be read; never by two threads at a time."""


@dataclass(frozen=True, slots=True)
class Opening:
    """How an encoder is opened: options of `open_encoder` other than the device."""

    encoder: str
    vectors: Vectors = "all"
    normalize: bool = False
    image_size: int | None = None
    resize: Resize | None = None
    precision: str = "auto"

    def open(self, device: str) -> Encoder:
        """The encoder on a device. Raises `ModelError` if there is none."""
        return open_encoder(
            self.encoder, vectors=self.vectors, normalize=self.normalize, image_size=self.image_size, resize=self.resize,
            device=device, precision=self.precision,
        )  # fmt: skip


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
        precision = "bf16" if str(encoder.precision) == "torch.bfloat16" else "fp32"
        return cls(encoder.note, encoder.spec, precision, encoder.features("float32"))

    def kind(self, wanted: str) -> str:
        """The kind of number to keep; `auto` is bfloat16 where bf16 computes, else float16."""
        return wanted if wanted != "auto" else "bfloat16" if self.precision == "bf16" else "float16"

    def features(self, dtype: str) -> FeaturesNote:
        """The features when kept as numbers of this kind."""
        return self.shape.model_copy(update={"dtype": dtype})

    def check(self, encoder: Encoder, where: str) -> None:
        """Raise `ModelError` if an encoder that was opened on another machine is another one."""
        check_same(where, self.note, encoder.note.name, encoder.note.weights)


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done: how, parts of which size, of which sources, without parts that `skip` names, and whom to tell."""

    writer: StoreWriter
    pipeline: Pipeline
    size: int
    sources: Sequence[Source]
    skip: Skip
    tell: Tell


class Engine(ABC):
    """Opened with `with`: what it started ends then."""

    def __init__(self, opening: Opening, devices: Sequence[str], address: str | None) -> None:
        self.opening, self.devices, self.address = opening, devices, address

    @abstractmethod
    def about(self) -> About:
        """What its encoder is. Raises `ModelError` if it can't be opened."""

    @abstractmethod
    def run(self, work: Work) -> None:
        """Do the work. A source's last part leaves the store's writer knowing all its shards."""

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """End what was started for it."""

    def _settle_precision(self, about: About) -> None:
        """Whatever is opened from now on computes as the first encoder does."""
        self.opening = replace(self.opening, precision=about.precision)

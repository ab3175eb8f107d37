"""`captrain encode` as a function: the features of any data set, computed once into a store."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from captrain.data.feature_store.folder import StoreFolder
from captrain.data.feature_store.manifest import REJECTED, FeaturesNote, Manifest
from captrain.data.feature_store.store import FeatureStore
from captrain.data.images import MAX_PIXELS, Decode
from captrain.data.machine import MACHINE
from captrain.data.readers.options import BY_LOOKING, ReadOptions
from captrain.errors import DataError, SettingsError
from captrain.features.content import PREPARATION_VERSION
from captrain.features.encoder import Encoder, Vectors
from captrain.features.engines import make_engine
from captrain.features.engines.encoding import About, Encoding, Opening
from captrain.features.engines.job import Job, changed_sources, parts_of
from captrain.features.pipeline import Pipeline
from captrain.features.sources import Source, sources_of
from captrain.features.writing import StoreWriter, images_of, locked
from captrain.models.preparation import Resize
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

    def __fspath__(self) -> str:
        """The store is taken wherever a path to data is."""
        return self.store

    def open(self) -> FeatureStore:
        """The store, to read vectors and samples from."""
        return FeatureStore(self.store)


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

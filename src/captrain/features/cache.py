"""The feature cache: one pass over all pictures before training, so that epochs compute nothing twice.

While the encoder is frozen, its features are cached, and no epoch touches a pixel. While it learns, the decoded and resized
pixels are cached. The same pass finds the pictures that can't be used.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor

from captrain.data.feature_store.layout import EncoderNote, FeaturesNote, Manifest
from captrain.data.feature_store.shard import IndexEntry
from captrain.data.feature_store.writer import images_a_shard
from captrain.data.images import MAX_PIXELS
from captrain.data.samples import ChosenSamples
from captrain.features.batch_workers import AT_ONCE_ON_CPU, BatchWorkers
from captrain.features.cache_arrays import KINDS, ArrayStore, DiskStore, MemoryStore, check_held
from captrain.features.encoder import (
    PREPARATION_VERSION,
    encoder_name,
    encoder_note,
    features_key,
    pixels_key,
    vectors_read,
)
from captrain.features.stored_images import stored_images
from captrain.features.stream import stream_pictures
from captrain.features.training_images import PLAIN, CachedImages, Images, LiveImages, Views
from captrain.models.contexts import evaluating
from captrain.models.contract import CaptionerModel
from captrain.progress import Advance, track
from captrain.records import Rejects, Sample

logger = logging.getLogger(__name__)

AT_ONCE = 32
"""Pictures that a GPU encodes together."""
GIB = 2**30


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """How features are cached.

    Attributes:
        where: auto, memory, disk or off. folder: for what goes to disk.
        budget: bytes of memory; None is a quarter of what is free.
        workers: threads that decode. max_pixels: pictures with more pixels are refused.
        dtype: numbers that features are kept in: bfloat16, float16, float32, int8; `auto` is that of the precision.
    """

    where: str
    folder: Path
    budget: int | None = None
    workers: int = 1
    max_pixels: int = MAX_PIXELS
    dtype: str = "auto"

    def memory(self) -> int:
        """Bytes of memory that the cache may use."""
        return psutil.virtual_memory().available // 4 if self.budget is None else self.budget


def cache_features(
    captioner: CaptionerModel,
    splits: dict[str, Sequence[Sample]],
    options: CacheOptions,
    rejects: Rejects,
    views: Mapping[str, Views] | None = None,
) -> dict[str, Images]:
    """Compute what training needs of all pictures of all splits, once. Pictures that can't be decoded are rejected.

    Args:
        views: the views of the pictures of each split; a split that is not named has only the pictures themselves.

    Returns:
        The images of each split, in order, without the rejected ones. A picture that occurs twice is computed once. Samples of
        feature stores have their features already, and nothing is computed.
    """
    views = views or {}
    if (stored := stored_images(captioner, splits, views, options.dtype)) is not None:
        return stored
    total = sum(len(samples) for samples in splits.values())
    count = sum(len(samples) * views.get(name, PLAIN).count for name, samples in splits.items())
    cache = FeatureCache(captioner, options, count, any(of_split.fresh_each_epoch for of_split in views.values()))
    encodes = cache.kind == "features" and cache.store is not None
    with track("encode pictures" if encodes else "decode pictures", total) as advance:
        return {
            name: cache.cache_split(samples, rejects, advance, views.get(name, PLAIN))
            for name, samples in splits.items()
        }


class FeatureCache:
    """One store of what a captioner needs of pictures: features while its encoder is frozen, else pixels.

    `store` is None when nothing is cached: because the options say so, because every epoch makes views of its own, or because
    pixels exceed the memory (decoding again is then cheaper than reading them from disk).
    """

    def __init__(
        self, captioner: CaptionerModel, options: CacheOptions, total: int, fresh_each_epoch: bool = False
    ) -> None:
        """`total` is the number of views of all pictures. With `fresh_each_epoch` nothing can be cached."""
        self.captioner = captioner
        self.options = options
        self.kind = "pixels" if captioner.vision_learns() else "features"
        self.dtype = "uint8" if self.kind == "pixels" else _dtype(captioner, options.dtype)
        if options.dtype != "auto" and (fresh_each_epoch or self.kind == "pixels"):
            why = "each epoch makes new views" if fresh_each_epoch else "the encoder learns"
            logger.warning("cache_dtype %s: %s, so no features are cached", options.dtype, why)
        self.begun: set[str] = set()  # keys of what is being computed, not yet in the store
        self.store = None if fresh_each_epoch else self._choose_store(total)

    def cache_split(
        self, samples: Sequence[Sample], rejects: Rejects, advance: Advance, views: Views = PLAIN
    ) -> Images:
        """The images of one split; each new view of a picture is computed and stored, in batches."""
        spec, options = self.captioner.image_spec, self.options
        known: Container[str] = frozenset() if self.store is None else self.store
        positions: list[int] = []
        keys: list[str] = []
        views_of: list[Views] = []
        pending: dict[str, tuple[IndexEntry, np.ndarray]] = {}
        done = 0
        at_once = AT_ONCE_ON_CPU if self.captioner.device.type == "cpu" else AT_ONCE
        wanted = PLAIN if self.store is None else views
        with evaluating(self.captioner), BatchWorkers(self._compute, self._keep, self.captioner.device) as encoders:
            for picture in stream_pictures(samples, spec, rejects, known, options.workers, options.max_pixels, wanted):
                positions.append(picture.index)
                keys.append(picture.key)
                views_of.append(picture.views)
                advance(picture.index + 1 - done)
                done = picture.index + 1
                made = picture.further if picture.pixels is None else {picture.key: picture.pixels, **picture.further}
                for key, pixels in made.items():
                    if key not in known and key not in self.begun:
                        pending[key] = _entry(samples[picture.index], picture.key, key), pixels
                    if len(pending) == at_once:
                        self._begin(pending, encoders)
            self._begin(pending, encoders)
        if self.store is not None:
            self.store.flush()
        advance(len(samples) - done)
        taken = np.array(positions, dtype=np.int64)
        used = samples if len(taken) == len(samples) else ChosenSamples(samples, taken)
        images: Images
        if self.store is None:
            images = LiveImages(used, spec, options.max_pixels, views, options.workers)
            images.contents = keys
        else:
            images = CachedImages(used, keys, self.store, self.kind, views_of)
        images.taken = taken
        return images

    def _begin(
        self, pending: dict[str, tuple[IndexEntry, np.ndarray]], encoders: BatchWorkers[Sequence[IndexEntry]]
    ) -> None:
        """Hand what is pending to the encoder, and empty it."""
        if pending and self.store is not None:
            entries, pixels = zip(*pending.values(), strict=True)
            self.begun.update(pending)
            encoders.add(entries, torch.from_numpy(np.stack(pixels)))
        pending.clear()

    def _keep(self, entries: Sequence[IndexEntry], computed: Tensor) -> None:
        """Store what was computed of a batch."""
        if self.store is not None:
            self.store.add(entries, computed)
        self.begun.difference_update(entry.content for entry in entries)

    @torch.no_grad()
    def _compute(self, pixels: Tensor) -> Tensor:
        """What the cache holds for pixels (I, height, width, 3): the pixels, or their features (fp32 for int8)."""
        if self.kind == "pixels":
            return pixels
        features = self.captioner.encode(pixels.to(self.captioner.device))
        features = features.to(KINDS.get(self.dtype, torch.float32)).cpu()
        if self.options.dtype != "auto":
            check_held(features, self.dtype, encoder_name(self.captioner), "--cache-dtype")
        return features

    def _choose_store(self, total: int) -> ArrayStore | None:
        """Memory if everything fits, else disk; pixels that do not fit are not cached."""
        where = self.options.where
        if where == "off":
            return None
        spec = self.captioner.image_spec
        with evaluating(self.captioner):
            example = self._compute(torch.zeros(1, spec.height, spec.width, 3, dtype=torch.uint8))
        features = self._features_note(example)
        needed = total * features.row_bytes
        fits = needed <= self.options.memory()
        if where == "memory" or (where == "auto" and fits):
            logger.info("%s of %d pictures are cached in memory: %.2f GiB", features, total, needed / GIB)
            return MemoryStore(self.dtype, self._precision())
        if where == "auto" and self.kind == "pixels":
            logger.info("pixels of %d pictures would take %.2f GiB: each epoch decodes them again", total, needed / GIB)
            return None
        key = features_key(self.captioner, self.dtype) if self.kind == "features" else pixels_key(spec)
        folder = self.options.folder / f"{self.kind}-{key}"
        logger.info("%s of %d pictures are cached on disk: %.2f GiB in %s", features, total, needed / GIB, folder)
        return DiskStore(folder, self._manifest(features), example.shape[1:], self._precision())

    def _precision(self) -> torch.dtype | None:
        """The arithmetic that features are read for; None for pixels."""
        return self.captioner.precision if self.kind == "features" else None

    def _features_note(self, example: Tensor) -> FeaturesNote:
        """What is cached of a picture, by what was computed of one."""
        tokens, width = (example.shape[1] * example.shape[2], 3) if self.kind == "pixels" else example.shape[1:]
        vectors = "pixels" if self.kind == "pixels" else vectors_read(self.captioner)
        return FeaturesNote(tokens=tokens, width=width, dtype=self.dtype, vectors=vectors)

    def _manifest(self, features: FeaturesNote) -> Manifest:
        """The manifest of the store on disk."""
        spec = self.captioner.image_spec
        encoder = EncoderNote(name="pixels", weights="none") if self.kind == "pixels" else encoder_note(self.captioner)
        return Manifest(
            complete=True, encoder=encoder, preparation=spec.to_dict(), preparation_version=PREPARATION_VERSION,
            features=features, captioned=False, max_words=None, shard_images=images_a_shard(features),
        )  # fmt: skip


def _dtype(captioner: CaptionerModel, wanted: str) -> str:
    """What features are kept in; `auto` is what they are computed in."""
    return wanted if wanted != "auto" else next(name for name, kind in KINDS.items() if kind == captioner.precision)


def _entry(sample: Sample, content: str, key: str) -> IndexEntry:
    """The store's entry for a picture, or for another view of it."""
    name = sample.id if key == content else f"{sample.id}#{key}"
    return IndexEntry(name, sample.captions, sample.source, key)

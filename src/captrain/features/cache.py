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
from captrain.features.cache_arrays import ArrayStore, DiskStore, MemoryStore
from captrain.features.encoder import KINDS, PREPARATION_VERSION, encoder_note, features_key, pixels_key, vectors_read
from captrain.features.stored_images import stored_images
from captrain.features.stream import stream_pictures
from captrain.features.training_images import PLAIN, CachedImages, Images, LiveImages, Views
from captrain.models.contexts import evaluating
from captrain.models.contract import CaptionerModel
from captrain.progress import Advance, track
from captrain.records import Rejects, Sample

logger = logging.getLogger(__name__)

AT_ONCE, AT_ONCE_ON_CPU = 32, 8
"""Pictures encoded together. With 64 at once a CPU takes twice as long for each (MobileNet): activations leave its cache."""
GIB = 2**30


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """How features are cached.

    Attributes:
        where: auto, memory, disk or off. folder: for what goes to disk.
        budget: bytes of memory; None is a quarter of what is free.
        workers: threads that decode. max_pixels: pictures with more pixels are refused.
    """

    where: str
    folder: Path
    budget: int | None = None
    workers: int = 1
    max_pixels: int = MAX_PIXELS

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
    if (stored := stored_images(captioner, splits, views)) is not None:
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
        for picture in stream_pictures(samples, spec, rejects, known, options.workers, options.max_pixels, wanted):
            positions.append(picture.index)
            keys.append(picture.key)
            views_of.append(picture.views)
            advance(picture.index + 1 - done)
            done = picture.index + 1
            made = picture.further if picture.pixels is None else {picture.key: picture.pixels, **picture.further}
            for key, pixels in made.items():
                if key not in known:
                    pending[key] = _entry(samples[picture.index], picture.key, key), pixels
                if len(pending) == at_once:
                    self._flush(pending)
        self._flush(pending)
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

    def _flush(self, pending: dict[str, tuple[IndexEntry, np.ndarray]]) -> None:
        """Compute and store what is pending, and empty it."""
        if pending and self.store is not None:
            entries, pixels = zip(*pending.values(), strict=True)
            self.store.add(entries, self._compute(torch.from_numpy(np.stack(pixels))))
        pending.clear()

    @torch.no_grad()
    def _compute(self, pixels: Tensor) -> Tensor:
        """What the cache holds for pixels (I, height, width, 3): the pixels, or their features in the captioner's precision."""
        if self.kind == "pixels":
            return pixels
        with evaluating(self.captioner):
            features = self.captioner.encode(pixels.to(self.captioner.device))
        return features.to(self.captioner.precision).cpu()

    def _choose_store(self, total: int) -> ArrayStore | None:
        """Memory if everything fits, else disk; pixels that do not fit are not cached."""
        where = self.options.where
        if where == "off":
            return None
        spec = self.captioner.image_spec
        example = self._compute(torch.zeros(1, spec.height, spec.width, 3, dtype=torch.uint8))
        needed = total * example.nbytes
        fits = needed <= self.options.memory()
        if where == "memory" or (where == "auto" and fits):
            logger.info("%s of %d pictures are cached in memory: %.2f GiB", self.kind, total, needed / GIB)
            return MemoryStore()
        if where == "auto" and self.kind == "pixels":
            logger.info("pixels of %d pictures would take %.2f GiB: each epoch decodes them again", total, needed / GIB)
            return None
        key = features_key(self.captioner) if self.kind == "features" else pixels_key(spec)
        folder = self.options.folder / f"{self.kind}-{key}"
        logger.info("%s of %d pictures are cached on disk: %.2f GiB in %s", self.kind, total, needed / GIB, folder)
        return DiskStore(folder, self._manifest(example), example.shape[1:])

    def _manifest(self, example: Tensor) -> Manifest:
        """The manifest of the store on disk."""
        captioner, spec = self.captioner, self.captioner.image_spec
        if self.kind == "pixels":
            encoder = EncoderNote(name="pixels", weights="none")
            features = FeaturesNote(tokens=spec.height * spec.width, width=3, dtype="uint8", vectors="pixels")
        else:
            dtype = next(name for name, kind in KINDS.items() if kind == example.dtype)
            tokens, width = example.shape[1:]
            encoder = encoder_note(captioner)
            features = FeaturesNote(tokens=tokens, width=width, dtype=dtype, vectors=vectors_read(captioner))
        return Manifest(
            complete=True, encoder=encoder, preparation=spec.to_dict(), preparation_version=PREPARATION_VERSION,
            features=features, captioned=False, max_words=None, shard_images=images_a_shard(features),
        )  # fmt: skip


def _entry(sample: Sample, content: str, key: str) -> IndexEntry:
    """The store's entry for a picture, or for another view of it."""
    name = sample.id if key == content else f"{sample.id}#{key}"
    return IndexEntry(name, sample.captions, sample.source, key)

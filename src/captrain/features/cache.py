"""Compute once, keep: the pass over all pictures that comes before training.

While the encoder is frozen its features are kept, and later epochs never touch a pixel. While it learns, the decoded and resized
pixels are kept. The same pass finds the pictures that can't be used.
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

from captrain.data.feature_store.manifest import EncoderNote, FeaturesNote, Manifest
from captrain.data.feature_store.shard import Entry
from captrain.data.feature_store.writer import images_of
from captrain.data.images import MAX_PIXELS
from captrain.data.samples import Chosen
from captrain.features.cache_arrays import DiskStore, MemoryStore, Store
from captrain.features.encoder import KINDS, PREPARATION_VERSION, encoder_note, features_key, pixels_key, vectors_read
from captrain.features.stored_images import stored_images
from captrain.features.stream import default_workers, stream_pictures
from captrain.features.training_images import PLAIN, Images, KeptImages, LiveImages, Views
from captrain.models.captioner import CaptionerModel
from captrain.models.contexts import evaluating
from captrain.progress import Advance, track
from captrain.records import Rejects, Sample

logger = logging.getLogger(__name__)

AT_ONCE, AT_ONCE_ON_CPU = 32, 8
"""Pictures encoded together. A CPU takes twice as long for each of 64 of MobileNet's: what layers hand on leaves its cache."""
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Keeping:
    """Where to keep: `where` is auto, memory, disk or off; `budget` in bytes of memory; `folder` for what goes to disk."""

    where: str
    folder: Path
    budget: int | None = None
    workers: int | None = None
    max_pixels: int = MAX_PIXELS

    def memory(self) -> int:
        """Bytes of memory that may be used: as told, else a quarter of what is free."""
        return psutil.virtual_memory().available // 4 if self.budget is None else self.budget


def keep_images(
    captioner: CaptionerModel,
    splits: dict[str, Sequence[Sample]],
    keeping: Keeping,
    rejects: Rejects,
    views: Mapping[str, Views] | None = None,
) -> dict[str, Images]:
    """Go over all pictures of all splits once; what can't be decoded is rejected and leaves its split.

    Args:
        views: by split, the views of its pictures; a split that is not named has the pictures themselves.

    Returns:
        For each split its images, in its order without the rejected ones. A picture that occurs twice is computed once.
        Of samples in feature stores nothing is computed: their features are those of the store.
    """
    views = views or {}
    if (stored := stored_images(captioner, splits, views)) is not None:
        return stored
    total = sum(len(samples) for samples in splits.values())
    kept = sum(len(samples) * views.get(name, PLAIN).count for name, samples in splits.items())
    keeper = Keeper(captioner, keeping, kept, any(of_split.anew for of_split in views.values()))
    encodes = keeper.kind == "features" and keeper.store is not None
    with track("encode pictures" if encodes else "decode pictures", total) as advance:
        return {
            name: keeper.keep(samples, rejects, advance, views.get(name, PLAIN)) for name, samples in splits.items()
        }


class Keeper:
    """Fills one store with what a captioner needs of pictures: features while its encoder is frozen, else pixels.

    `store` is None when nothing is kept: by wish, because every epoch makes views of its own, or because pixels exceed the
    memory (decoding again is then cheaper than disk).
    """

    def __init__(self, captioner: CaptionerModel, keeping: Keeping, total: int, anew: bool = False) -> None:
        self.captioner = captioner
        self.keeping = keeping
        self.kind = "pixels" if captioner.vision_learns() else "features"
        self.store = None if anew else self._choose_store(total)

    def keep(self, samples: Sequence[Sample], rejects: Rejects, advance: Advance, views: Views = PLAIN) -> Images:
        """One split's images; each new view of a picture is computed and kept, in batches."""
        spec, keeping = self.captioner.image_spec, self.keeping
        known: Container[str] = frozenset() if self.store is None else self.store
        positions: list[int] = []
        keys: list[str] = []
        views_of: list[Views] = []
        pending: dict[str, tuple[Entry, np.ndarray]] = {}
        done = 0
        at_once = AT_ONCE_ON_CPU if self.captioner.device.type == "cpu" else AT_ONCE
        wanted = PLAIN if self.store is None else views
        for picture in stream_pictures(samples, spec, rejects, known, keeping.workers, keeping.max_pixels, wanted):
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
        used = samples if len(taken) == len(samples) else Chosen(samples, taken)
        images: Images
        if self.store is None:
            workers = default_workers() if keeping.workers is None else keeping.workers
            images = LiveImages(used, spec, keeping.max_pixels, views, workers)
            images.contents = keys
        else:
            images = KeptImages(used, keys, self.store, self.kind, views_of)
        images.taken = taken
        return images

    def _flush(self, pending: dict[str, tuple[Entry, np.ndarray]]) -> None:
        """Compute and keep what is pending, then forget it."""
        if pending and self.store is not None:
            entries, pixels = zip(*pending.values(), strict=True)
            self.store.add(entries, self._compute(torch.from_numpy(np.stack(pixels))))
        pending.clear()

    @torch.no_grad()
    def _compute(self, pixels: Tensor) -> Tensor:
        """What is kept of pixels (I, height, width, 3): themselves, or their features in the captioner's precision."""
        if self.kind == "pixels":
            return pixels
        with evaluating(self.captioner):
            features = self.captioner.encode(pixels.to(self.captioner.device))
        return features.to(self.captioner.precision).cpu()

    def _choose_store(self, total: int) -> Store | None:
        """Memory while everything fits, else disk; pixels that do not fit are not kept."""
        where = self.keeping.where
        if where == "off":
            return None
        spec = self.captioner.image_spec
        example = self._compute(torch.zeros(1, spec.height, spec.width, 3, dtype=torch.uint8))
        needed = total * example.nbytes
        fits = needed <= self.keeping.memory()
        if where == "memory" or (where == "auto" and fits):
            logger.info("%s of %d pictures are kept in memory: %.2f GiB", self.kind, total, needed / GIB)
            return MemoryStore()
        if where == "auto" and self.kind == "pixels":
            logger.info(
                "pixels of %d pictures would take %.2f GiB: they are decoded anew each epoch", total, needed / GIB
            )
            return None
        key = features_key(self.captioner) if self.kind == "features" else pixels_key(spec)
        folder = self.keeping.folder / f"{self.kind}-{key}"
        logger.info("%s of %d pictures are kept on disk: %.2f GiB in %s", self.kind, total, needed / GIB, folder)
        return DiskStore(folder, self._manifest(example), example.shape[1:])

    def _manifest(self, example: Tensor) -> Manifest:
        """What is said of the store on disk."""
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
            features=features, captioned=False, max_words=None, shard_images=images_of(features),
        )  # fmt: skip


def _entry(sample: Sample, content: str, key: str) -> Entry:
    """What the store says of a picture, or of a further view of it."""
    name = sample.id if key == content else f"{sample.id}#{key}"
    return Entry(name, sample.captions, sample.source, key)

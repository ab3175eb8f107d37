"""Images whose features are in feature stores: read from mapped files by position, without the pictures."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import psutil
import torch
from torch import Tensor

from captrain.data.feature_store.int8 import StoredVectors
from captrain.data.feature_store.store import StoreSamples, VectorStore
from captrain.data.samples import ChosenSamples, JoinedSamples, PrefixedSamples
from captrain.errors import DataError, ModelError, SettingsError
from captrain.features.cache_arrays import as_batch
from captrain.features.encoder import PREPARATION_VERSION, check_same_encoder, encoder_note
from captrain.features.training_images import Images, Views
from captrain.models.contract import CaptionerModel
from captrain.records import Sample

logger = logging.getLogger(__name__)

MOST_TO_LEARN_WORDS = 200_000  # images whose captions make a vocabulary: a million of them take over ten seconds


class StoredImages(Images):
    """Images whose features are in the shards of one or several stores.

    If the stores are larger than the free memory, so that reading in random order would be slow, `blocks` holds the number of
    each image's shard; otherwise it is None.
    """

    kind = "features"

    def __init__(self, samples: Sequence[Sample], places: StoredPositions, precision: torch.dtype) -> None:
        self.samples = samples
        self.taken = np.arange(len(samples))
        self.places = places
        self.precision = precision
        self.blocks = places.shards() if places.bytes() > psutil.virtual_memory().available else None

    def rows(self, positions: Sequence[int], epoch: int | None = None) -> dict[str, Tensor]:
        """From the mapped shards: only these rows are read. With fp32 arithmetic they are fp32."""
        return {self.kind: self.places.rows(np.asarray(positions, dtype=np.int64), self.precision)}

    def captions(self) -> int:
        """The number of captions of all images, counted in the indexes."""
        return int(self.places.counts().sum())


class StoredPositions:
    """Where samples are stored: for each, the number of its `StoreSamples` and its position there."""

    def __init__(self, leaves: list[StoreSamples], leaf: np.ndarray, inner: np.ndarray) -> None:
        self.leaves, self.leaf, self.inner = leaves, leaf, inner

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> StoredPositions | None:
        """The places of samples if all are in stores; None if none is. Raises `DataError` for a mixture."""
        if isinstance(samples, StoreSamples):
            return cls([samples], np.zeros(len(samples), np.int32), np.arange(len(samples)))
        if isinstance(samples, ChosenSamples):
            found = cls.of(samples.samples)
            return None if found is None else found._chosen(samples.positions)
        if isinstance(samples, PrefixedSamples):
            return cls.of(samples.samples)
        return cls._of_joined(samples) if isinstance(samples, JoinedSamples) else None

    def rows(self, positions: np.ndarray, precision: torch.dtype) -> Tensor:
        """Features (positions, N, D) for arithmetic in a precision. Each is copied once, from the mapped file to its row."""
        if not self.leaves:
            return torch.empty(0)
        features = self.leaves[0].store.features
        found: dict[int, tuple[StoredVectors, int]] = {}
        leaf, inner = self.leaf[positions], self.inner[positions]
        for number in np.unique(leaf):
            here = np.flatnonzero(leaf == number)
            samples = self.leaves[number]
            parts, offsets = samples.places(inner[here])
            for row, part, offset in zip(here.tolist(), parts.tolist(), offsets.tolist(), strict=True):
                found[row] = samples.store.vectors(part), offset
        in_order = [found[row] for row in range(len(positions))]
        return as_batch(in_order, (features.tokens, features.width), features.dtype, precision)

    def texts(self) -> Iterator[str]:
        """All captions of all samples, in order; those of a shard are read together."""
        for number, inner in _runs(self.leaf, self.inner):
            samples = self.leaves[number]
            for part, rows in _runs(*samples.places(inner)):
                yield from samples.store.index(part).captions(rows)

    def counts(self) -> np.ndarray:
        """The number of captions of each sample (samples,)."""
        counts = np.empty(len(self.inner), np.int64)
        for number, leaf in enumerate(self.leaves):
            here = self.leaf == number
            counts[here] = leaf.counts()[self.inner[here]]
        return counts

    def shards(self) -> np.ndarray:
        """The number of each sample's shard (samples,)."""
        shards = np.empty(len(self.inner), np.int64)
        first = 0
        for number, leaf in enumerate(self.leaves):
            here = self.leaf == number
            shards[here] = first + np.searchsorted(leaf.ends, self.inner[here], side="right")
            first += len(leaf.parts)
        return shards

    def bytes(self) -> int:
        """The bytes of the features of all samples."""
        return len(self.inner) * self.leaves[0].store.features.row_bytes if self.leaves else 0

    def _chosen(self, positions: np.ndarray) -> StoredPositions:
        return StoredPositions(self.leaves, self.leaf[positions], self.inner[positions])

    @classmethod
    def _of_joined(cls, samples: JoinedSamples) -> StoredPositions | None:
        parts = [part for part in samples.parts if len(part)]
        found = [cls.of(part) for part in parts]
        places = [part for part in found if part is not None]
        if not places:
            return None
        if len(places) < len(parts):
            raise DataError("found pictures and feature stores together; expected one of them, encode the pictures too")
        firsts = np.cumsum([0, *(len(part.leaves) for part in places)])
        leaf = np.concatenate([part.leaf + first for part, first in zip(places, firsts, strict=False)])
        leaves = [leaf for part in places for leaf in part.leaves]
        return cls(leaves, leaf.astype(np.int32), np.concatenate([part.inner for part in places]))


def vocabulary_captions(samples: Sequence[Sample], most: int = MOST_TO_LEARN_WORDS) -> Iterator[str]:
    """The captions that a vocabulary is made of: those of all samples, in order.

    Of more than `most` stored samples, `most` are taken, evenly spread, and their captions are read shard by shard, so that
    training on a large store begins at once.
    """
    if len(samples) and (places := StoredPositions.of(samples)) is not None:
        few = np.linspace(0, len(samples), most, endpoint=False, dtype=np.int64)
        return (places._chosen(few) if len(samples) > most else places).texts()
    return (caption for sample in samples for caption in sample.captions)


def _runs(groups: np.ndarray, values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Runs of values with the same group.

    >>> [(group, values.tolist()) for group, values in _runs(np.array([5, 5, 7]), np.array([1, 2, 3]))]
    [(5, [1, 2]), (7, [3])]
    """
    firsts = np.flatnonzero(np.diff(groups, prepend=-1))
    for first, last in zip(firsts, [*firsts[1:], len(groups)], strict=True):
        yield int(groups[first]), values[first:last]


def stored_images(
    captioner: CaptionerModel, splits: Mapping[str, Sequence[Sample]], views: Mapping[str, Views], dtype: str = "auto"
) -> dict[str, Images] | None:
    """The images of splits that are in feature stores; None if they are pictures. `dtype` is what a cache was asked to have.

    Raises `UserError` if the captioner can't learn from these features: if its encoder learns, if views of pictures are asked
    for, or if the store comes from another encoder or preparation, or has another shape.
    """
    found = {name: StoredPositions.of(samples) for name, samples in splits.items() if len(samples)}
    places = {name: place for name, place in found.items() if place is not None}
    if not places:
        return None
    if len(places) < len(found):
        raise DataError("found pictures in one split and features in another; expected all in feature stores, or none")
    stores = list({id(leaf.store): leaf.store for place in places.values() for leaf in place.leaves}.values())
    if any(of_split.augmentation is not None for of_split in views.values()):
        raise SettingsError(f"{stores[0].label}: holds features, which can't be cropped or flipped; train on pictures")
    if any(of_split.mirrored for of_split in views.values()):
        logger.warning("%s: holds no mirror images; captions are generated from the pictures alone", stores[0].label)
    check_stores_fit(captioner, stores)
    if dtype not in ("auto", stores[0].features.dtype):
        logger.warning(
            "%s: is read as it is, %s; cache_dtype %s is for pictures", stores[0].label, stores[0].features, dtype
        )
    empty = StoredPositions([], np.empty(0, np.int32), np.empty(0, np.int64))
    return {
        name: StoredImages(samples, places.get(name, empty), captioner.precision) for name, samples in splits.items()
    }


def check_stores_fit(captioner: CaptionerModel, stores: Sequence[VectorStore]) -> None:
    """Raise `UserError` unless the stores hold the features that the captioner's own encoder would compute."""
    first = stores[0]
    if any(store.features.vectors == "pixels" for store in stores):
        raise DataError(
            f"{first.label}: holds pixels that a training run cached; expected features, or the pictures themselves"
        )
    if captioner.vision_learns():
        raise SettingsError(
            f"{first.label}: holds features of an encoder as it is, but this training changes the encoder; use --freeze vision"
        )
    mine = encoder_note(captioner)
    spec = captioner.image_spec
    with torch.no_grad():
        made = captioner.encode(torch.zeros(1, spec.height, spec.width, 3, dtype=torch.uint8, device=captioner.device))
    normalizes = bool(getattr(captioner.core().config, "normalize", False))
    for store in stores:
        if store.encoder is None:
            logger.warning(
                "%s: does not say which encoder made it; its features are assumed to come from this encoder",
                store.label,
            )
        else:
            check_same_encoder(store.label, store.encoder, f"the encoder of {mine.name}", mine.weights)
            _check_preparation(store, captioner)
        shape = (store.features.tokens, store.features.width)
        if shape != tuple(made.shape[1:]):
            raise ModelError(
                f"{store.label}: holds {store.features}, this captioner reads {made.shape[1]} x {made.shape[2]}; "
                "choose with --image-vectors here, or with captrain encode --vectors"
            )
        if store.features.normalized and not normalizes:
            raise ModelError(
                f"{store.label}: holds normalised features, but this captioner's encoder does not normalise; encode again "
                "without --normalize"
            )


def _check_preparation(store: VectorStore, captioner: CaptionerModel) -> None:
    mine, its = captioner.image_spec.to_dict(), dict(store.preparation or {})
    version = getattr(getattr(store, "manifest", None), "preparation_version", PREPARATION_VERSION)
    if version != PREPARATION_VERSION:
        raise ModelError(
            f"{store.label}: its pictures were prepared by version {version} of the rules, this captrain uses "
            f"version {PREPARATION_VERSION}; encode them again"
        )
    for name in mine:
        if mine[name] != its.get(name):
            raise ModelError(
                f"{store.label}: its pictures were prepared with {name} {its.get(name)}, this captioner uses "
                f"{mine[name]}; use --image-size, --resize and --decode as in captrain encode"
            )

"""Images of which only features are there, in stores: they come out of mapped files by position, and no picture is touched."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import psutil
import torch
from torch import Tensor

from captrain.data.feature_store.shard import NUMBERS
from captrain.data.feature_store.store import StoreSamples, VectorStore
from captrain.data.samples import Chosen, Joined, Prefixed
from captrain.errors import DataError, ModelError, SettingsError
from captrain.features.cache_arrays import as_tensor
from captrain.features.encoder import PREPARATION_VERSION, check_same, encoder_note
from captrain.features.training_images import Images, Views
from captrain.models.captioner import CaptionerModel
from captrain.records import Sample

logger = logging.getLogger(__name__)

MOST_TO_LEARN_WORDS = 200_000  # images whose captions make a vocabulary: over a million of them take ten seconds


class StoredImages(Images):
    """Images by position, their features in the shards of one or several stores.

    `blocks` holds for each image the number of its shard where the stores are larger than the free memory, so that reading
    in any order would be slow; otherwise it is None.
    """

    kind = "features"

    def __init__(self, samples: Sequence[Sample], places: Places, precision: torch.dtype) -> None:
        self.samples = samples
        self.taken = np.arange(len(samples))
        self.places = places
        self.precision = precision
        self.blocks = places.shards() if places.bytes() > psutil.virtual_memory().available else None

    def rows(self, positions: Sequence[int], epoch: int | None = None) -> dict[str, Tensor]:
        """From the mapped shards: only these rows are read. In fp32 arithmetic they come as fp32."""
        features = self.places.rows(np.asarray(positions, dtype=np.int64))
        wide = self.precision == torch.float32 or features.dtype == torch.float32
        return {self.kind: features.to(self.precision if wide else features.dtype)}

    def captions(self) -> int:
        """How many captions all images have; counted in the indexes."""
        return int(self.places.counts().sum())


class Places:
    """Where samples lie: for each the number of a sequence of stored samples, and its position there."""

    def __init__(self, leaves: list[StoreSamples], leaf: np.ndarray, inner: np.ndarray) -> None:
        self.leaves, self.leaf, self.inner = leaves, leaf, inner

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Places | None:
        """The places of samples that are all in stores; None if none is. Raises `DataError` for a mixture."""
        if isinstance(samples, StoreSamples):
            return cls([samples], np.zeros(len(samples), np.int32), np.arange(len(samples)))
        if isinstance(samples, Chosen):
            found = cls.of(samples.samples)
            return None if found is None else found._chosen(samples.positions)
        if isinstance(samples, Prefixed):
            return cls.of(samples.samples)
        return cls._joined(samples) if isinstance(samples, Joined) else None

    def rows(self, positions: np.ndarray) -> Tensor:
        """Features (positions, N, D) as they are stored; each is copied once, from the mapped file to its row."""
        if not self.leaves:
            return torch.empty(0)
        features = self.leaves[0].store.features
        made = np.empty((len(positions), features.tokens, features.width), NUMBERS[features.dtype][1])
        leaf, inner = self.leaf[positions], self.inner[positions]
        for number in np.unique(leaf):
            here = np.flatnonzero(leaf == number)
            samples = self.leaves[number]
            parts, offsets = samples.places(inner[here])
            for row, part, offset in zip(here.tolist(), parts.tolist(), offsets.tolist(), strict=True):
                made[row] = samples.store.vectors(part)[offset]
        return as_tensor(made, features.dtype)

    def texts(self) -> Iterator[str]:
        """All captions of all samples, in their order; a shard's are read together."""
        for number, inner in _runs(self.leaf, self.inner):
            samples = self.leaves[number]
            for part, rows in _runs(*samples.places(inner)):
                yield from samples.store.index(part).captions(rows)

    def counts(self) -> np.ndarray:
        """Captions of each sample (samples,)."""
        counts = np.empty(len(self.inner), np.int64)
        for number, leaf in enumerate(self.leaves):
            here = self.leaf == number
            counts[here] = leaf.counts()[self.inner[here]]
        return counts

    def shards(self) -> np.ndarray:
        """A number for the shard of each sample (samples,)."""
        shards = np.empty(len(self.inner), np.int64)
        first = 0
        for number, leaf in enumerate(self.leaves):
            here = self.leaf == number
            shards[here] = first + np.searchsorted(leaf.ends, self.inner[here], side="right")
            first += len(leaf.parts)
        return shards

    def bytes(self) -> int:
        """Bytes of the features of all samples."""
        return len(self.inner) * self.leaves[0].store.features.row_bytes if self.leaves else 0

    def _chosen(self, positions: np.ndarray) -> Places:
        return Places(self.leaves, self.leaf[positions], self.inner[positions])

    @classmethod
    def _joined(cls, samples: Joined) -> Places | None:
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


def captions_of(samples: Sequence[Sample], most: int = MOST_TO_LEARN_WORDS) -> Iterator[str]:
    """The captions that a vocabulary is made of: those of all samples, in their order.

    Of stored samples that are more than `most`, so many are taken, evenly spread, and their captions are read a shard at a
    time: training on a large store begins at once.
    """
    if len(samples) and (places := Places.of(samples)) is not None:
        few = np.linspace(0, len(samples), most, endpoint=False, dtype=np.int64)
        return (places._chosen(few) if len(samples) > most else places).texts()
    return (caption for sample in samples for caption in sample.captions)


def _runs(groups: np.ndarray, values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Values cut where the group changes.

    >>> [(group, values.tolist()) for group, values in _runs(np.array([5, 5, 7]), np.array([1, 2, 3]))]
    [(5, [1, 2]), (7, [3])]
    """
    firsts = np.flatnonzero(np.diff(groups, prepend=-1))
    for first, last in zip(firsts, [*firsts[1:], len(groups)], strict=True):
        yield int(groups[first]), values[first:last]


def stored_images(
    captioner: CaptionerModel, splits: Mapping[str, Sequence[Sample]], views: Mapping[str, Views]
) -> dict[str, Images] | None:
    """Images of splits that are in feature stores; None if they are pictures.

    Raises `UserError` if the captioner can't learn from these features: its encoder learns, views of pictures are asked for,
    or the store is of another encoder, preparation or form.
    """
    found = {name: Places.of(samples) for name, samples in splits.items() if len(samples)}
    places = {name: place for name, place in found.items() if place is not None}
    if not places:
        return None
    if len(places) < len(found):
        raise DataError("found pictures in one split and features in another; expected all in feature stores, or none")
    stores = list({id(leaf.store): leaf.store for place in places.values() for leaf in place.leaves}.values())
    if any(of_split.augmentation is not None for of_split in views.values()):
        raise SettingsError(
            f"{stores[0].label}: holds features, of which no crops or flips can be made; train on pictures"
        )
    if any(of_split.mirrored for of_split in views.values()):
        logger.warning("%s: holds no mirror images; captions are written of the pictures alone", stores[0].label)
    check_fits(captioner, stores)
    empty = Places([], np.empty(0, np.int32), np.empty(0, np.int64))
    return {
        name: StoredImages(samples, places.get(name, empty), captioner.precision) for name, samples in splits.items()
    }


def check_fits(captioner: CaptionerModel, stores: Sequence[VectorStore]) -> None:
    """Raise `UserError` unless features of the stores are those that the captioner's own encoder would compute."""
    first = stores[0]
    if any(store.features.vectors == "pixels" for store in stores):
        raise DataError(
            f"{first.label}: holds pixels that a training kept; expected features, or the pictures themselves"
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
                "%s: does not say which encoder made it; its features are taken as this encoder's", store.label
            )
        else:
            check_same(store.label, store.encoder, f"the encoder of {mine.name}", mine.weights)
            _check_preparation(store, captioner)
        shape = (store.features.tokens, store.features.width)
        if shape != tuple(made.shape[1:]):
            raise ModelError(
                f"{store.label}: holds {store.features}, this captioner reads {made.shape[1]} x {made.shape[2]}; "
                "--image-vectors says which it reads, captrain encode --vectors which are kept"
            )
        if store.features.normalized and not normalizes:
            raise ModelError(
                f"{store.label}: holds normalised features, which this captioner's encoder does not make; encode again "
                "without --normalize"
            )


def _check_preparation(store: VectorStore, captioner: CaptionerModel) -> None:
    mine, its = captioner.image_spec.to_dict(), dict(store.preparation or {})
    version = getattr(getattr(store, "manifest", None), "preparation_version", PREPARATION_VERSION)
    if version != PREPARATION_VERSION:
        raise ModelError(
            f"{store.label}: its pictures were prepared by version {version} of the rules, this captrain has "
            f"{PREPARATION_VERSION}; encode them again"
        )
    for name in mine:
        if mine[name] != its.get(name):
            raise ModelError(
                f"{store.label}: its pictures were prepared with {name} {its.get(name)}, this captioner's are with "
                f"{mine[name]}; use --image-size, --resize and --decode as in captrain encode"
            )

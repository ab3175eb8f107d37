"""Feature stores that `captrain encode` wrote, and embedding folders of clip-retrieval: captions with features, no pictures.

The source is a store's folder or URL, or several with commas between them. Opening one reads its manifest; captions are
read from the index when a sample is asked for. Of several stores, ids begin with the store's name.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from captrain.data.feature_store.embeddings import EmbeddingFolder, is_embedding_folder
from captrain.data.feature_store.folder import StoreFolder
from captrain.data.feature_store.manifest import FORMAT, MANIFEST
from captrain.data.feature_store.store import FeatureStore, StoreSamples, VectorStore
from captrain.data.options import BY_LOOKING, ReadOptions
from captrain.data.places import is_remote
from captrain.data.samples import Chosen, Joined
from captrain.data.shards.remote import BACKENDS, path_of
from captrain.data.shards.sources import split_list
from captrain.disk.reading import open_file
from captrain.errors import DataError
from captrain.records import Rejects, Sample

_LOOKED_AT = 1 << 16  # bytes of a manifest that hold its mark: keys are sorted, and "format" comes before "shards"


def recognises(source: str, options: ReadOptions = BY_LOOKING) -> bool:
    """Whether this is a feature store or an embedding folder, or names several with commas."""
    parts = split_list(source)
    return bool(parts) and all(is_store(part) for part in parts)


def is_store(place: str) -> bool:
    """Whether a feature store or an embedding folder lies at a path or URL; never raises."""
    if not is_remote(place):
        return _has_mark(os.path.join(place, MANIFEST)) or is_embedding_folder(place)
    if (
        place.partition("://")[0] not in BACKENDS
        or place.startswith("hf://")
        or "." in path_of(place).rpartition("/")[2]
    ):
        return False
    try:
        return StoreFolder(place).exists(MANIFEST)
    except DataError:
        return False


def read(
    source: str, rejects: Rejects, options: ReadOptions = BY_LOOKING, *, captioned: bool = True
) -> dict[str, Sequence[Sample]]:
    """All samples of the stores, by split, in the order of their shards.

    Rejected are images without captions. Raises `DataError` if a store is not one or not finished, if stores do not hold the
    same kind of features, or if nothing is left.
    """
    places = split_list(source)
    stores = open_stores(places)
    parts: dict[str, list[Sequence[Sample]]] = {}
    for store, prefix in zip(stores, _prefixes(places), strict=True):
        for split in dict.fromkeys(part.split for part in store.parts):
            numbers = [number for number, part in enumerate(store.parts) if part.split == split]
            samples = _captioned(StoreSamples(store, numbers, prefix), rejects) if captioned else None
            samples = StoreSamples(store, numbers, prefix) if samples is None else samples
            if len(samples):
                parts.setdefault(split, []).append(samples)
    if not parts:
        problem = rejects.summary() if rejects else "no images in it"
        raise DataError(f"{source}: nothing to use ({problem}); expected features of images with captions")
    return {split: some[0] if len(some) == 1 else Joined(some) for split, some in parts.items()}


def open_stores(places: Sequence[str]) -> list[VectorStore]:
    """Stores that can be used together. Raises `DataError` naming the first two that differ."""
    stores: list[VectorStore] = [
        EmbeddingFolder(place) if not is_remote(place) and is_embedding_folder(place) else FeatureStore(place)
        for place in places
    ]
    for store in stores[1:]:
        check_alike(stores[0], store)
    return stores


def check_alike(one: VectorStore, other: VectorStore) -> None:
    """Raise `DataError` unless two stores hold features of one encoder, made in one way, in one form."""
    kinds = {
        "encoder": (one.encoder and one.encoder.weights, other.encoder and other.encoder.weights),
        "preparation": (one.preparation, other.preparation),
        "features": (one.features, other.features),
    }
    shown = {"encoder": (one.encoder, other.encoder), "preparation": (one.preparation, other.preparation)}
    for name, (first, second) in kinds.items():
        if first != second:
            mine, its = shown.get(name, (first, second))
            raise DataError(
                f"{other.label}: its {name} is {its or 'not known'}, that of {one.label} is {mine or 'not known'}; stores "
                "that are used together must be alike, encode one again"
            )


def _captioned(samples: StoreSamples, rejects: Rejects) -> Sequence[Sample]:
    """The samples that have captions; the others are rejected. Where all have some, no index is opened."""
    if not any(samples.store.parts[part].bare for part in samples.parts):
        return samples
    counts = samples.counts()
    for index in np.flatnonzero(counts == 0):
        sample = samples[int(index)]
        rejects.add(sample.id, str(sample.image), "has no caption")
    return Chosen(samples, np.flatnonzero(counts))


def _prefixes(places: Sequence[str]) -> list[str]:
    """What ids of each store begin with: nothing for one store, else its name, with a number where that is taken.

    >>> _prefixes(["a/one"]), _prefixes(["a/one", "b/one"])
    ([''], ['one/', 'one-2/'])
    """
    if len(places) == 1:
        return [""]
    names: list[str] = []
    for place in places:
        name = path_of(place).rstrip("/").rpartition("/")[2] or "store"
        number = 2
        wanted = name
        while wanted in names:
            wanted, number = f"{name}-{number}", number + 1
        names.append(wanted)
    return [f"{name}/" for name in names]


def _has_mark(path: str) -> bool:
    try:
        with open_file(path) as file:
            return f'"{FORMAT}"'.encode() in file.read(_LOOKED_AT)
    except (OSError, ValueError):
        return False

"""The nearest neighbours of a picture in a store, to see that the vectors mean something."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from captrain.data.feature_store.store import VectorStore
from captrain.data.images import ImageSpec, prepare
from captrain.data.readers.features import open_stores
from captrain.disk.reading import read_file
from captrain.errors import DataError, ModelError, PictureError
from captrain.features.encoder import check_same, open_encoder
from captrain.features.manage import mean_vectors
from captrain.models.located import is_cached, looks_like_path
from captrain.records import LARGEST_PICTURE


class Neighbour(NamedTuple):
    """A stored picture: the cosine between its mean vector and the other's, its id and its captions."""

    cosine: float
    id: str
    captions: tuple[str, ...]


def search(places: Sequence[str], picture: Path, *, encoder: str | None = None, count: int = 10) -> list[Neighbour]:
    """The pictures of stores whose mean vectors point most nearly where that of `picture` does, nearest first.

    Args:
        encoder: a folder or hub id; without it the one that the store names.

    Raises `UserError` if the picture can't be read or the encoder is not the store's.
    """
    stores = open_stores(places)
    query = _vector(stores[0], picture, encoder)
    best: list[tuple[float, int, int, int]] = []
    for number, store in enumerate(stores):
        for part in range(len(store.parts)):
            cosines = _cosines(mean_vectors(store, part), query)
            for row in np.argsort(-cosines, kind="stable")[:count]:
                best.append((float(cosines[row]), -number, -part, -int(row)))
            best = heapq.nlargest(count, best)
    found = []
    for cosine, number, part, row in best:
        entry = stores[-number].index(-part).entry(-row)
        found.append(Neighbour(cosine, entry.id, entry.captions))
    return found


def _vector(store: VectorStore, picture: Path, encoder: str | None) -> np.ndarray:
    """A picture's mean vector (D,), by the store's encoder and preparation."""
    note = store.encoder
    if store.features.vectors == "pixels":
        raise DataError(f"{store.label}: holds pixels that a training kept; expected features")
    name = encoder or (note.name if note else None)
    if name is None:
        raise ModelError(f"{store.label}: does not say which encoder made it; name it: --encoder")
    if encoder is None and not (Path(name).exists() or looks_like_path(name) or is_cached(name)):
        raise ModelError(
            f"{store.label}: names its encoder {name}, which is not on this machine, and nothing is fetched that you did not "
            "name; give --encoder (a folder or hub id)"
        )
    model = open_encoder(name, vectors=store.features.vectors, normalize=store.features.normalized, precision="fp32")
    if note is not None:
        check_same(store.label, note, name, model.note.weights)
    if store.preparation is not None:
        model.spec = ImageSpec.from_dict(store.preparation)
    try:
        pixels = prepare(read_file(picture, LARGEST_PICTURE), model.spec)
    except OSError as error:
        raise DataError(f"{picture}: can't be read ({error.strerror}); expected a picture") from None
    except PictureError as error:
        raise DataError(f"{picture}: {error}") from None
    made = model.encode(torch.from_numpy(pixels)[None])
    if made.shape[2] != store.features.width:
        raise ModelError(f"{name}: makes vectors of {made.shape[2]}, {store.label} holds {store.features}")
    return made[0].float().mean(0).cpu().numpy()


def _cosines(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Cosines of rows (images, D) with a vector (D,); 0 for a row of zeros.

    >>> _cosines(np.array([[2.0, 0.0], [0.0, 0.0]]), np.array([3.0, 0.0])).tolist()
    [1.0, 0.0]
    """
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
    return np.divide(vectors @ query, lengths, out=np.zeros(len(vectors), vectors.dtype), where=lengths > 0)

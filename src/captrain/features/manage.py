"""Work on whole stores: describe, check, join and search them, convert them to and from clip-retrieval's layout.

A search gives the nearest neighbours of a picture, to see that the vectors mean something.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from captrain.data.feature_store.layout import (
    LARGEST,
    MANIFEST,
    Manifest,
    ShardNote,
    StoreFolder,
    features_file,
    index_file,
    parse_manifest,
    rejected_file,
)
from captrain.data.feature_store.shard import IndexRows, ShardIndex, map_shard
from captrain.data.feature_store.store import FeatureStore, VectorStore
from captrain.data.feature_store.writer import FeatureShard, StoreWriter, locked_store, records
from captrain.data.images import ImageSpec, prepare
from captrain.data.readers.features import ARRAYS, TABLES, EmbeddingFolder, check_alike, open_stores
from captrain.data.writers import new_folder
from captrain.disk.reading import read_file
from captrain.disk.writing import create
from captrain.errors import DataError, ModelError, PictureError
from captrain.features.cache_arrays import as_tensor
from captrain.features.encode import first_manifest
from captrain.features.encoder import Encoder, check_same_encoder, open_encoder
from captrain.models.checkpoint.located import is_cached, looks_like_path
from captrain.progress import track
from captrain.records import LARGEST_PICTURE, Rejects

ROWS = 4096  # looked at a time


@dataclass(frozen=True, slots=True)
class Problem:
    """A file of a store, and what is wrong with it."""

    file: str
    reason: str


def verify_store(place: str) -> list[Problem]:
    """Read every file of a store and compare it with the manifest; nothing is loaded whole."""
    folder = StoreFolder(place)
    manifest = parse_manifest(folder.read(MANIFEST, LARGEST), folder.where(MANIFEST))
    problems = [] if manifest.complete else [Problem(MANIFEST, "says that the store is not finished")]
    shards = [shard for shard in manifest.shards if shard.images]
    with track("verify", len(shards), "shard") as advance:
        for shard in shards:
            problems += _verify_shard(folder, manifest, shard)
            advance(1)
    return problems


def _verify_shard(folder: StoreFolder, manifest: Manifest, shard: ShardNote) -> Iterator[Problem]:
    for name, wanted in ((features_file(shard.name), shard.features), (index_file(shard.name), shard.index)):
        try:
            path = folder.local(name, wanted)
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != wanted:
                yield Problem(name, f"has changed: its SHA-256 is {found[:12]}, the manifest says {wanted[:12]}")
            elif name.endswith(".arrow"):
                index = ShardIndex.open(path, folder.where(name), shard.images)
                if int(index.counts().sum()) != shard.captions:
                    yield Problem(name, f"has {index.counts().sum()} captions, the manifest says {shard.captions}")
            else:
                map_shard(path, folder.where(name), shard.images, manifest.features)
        except DataError as error:
            yield Problem(name, str(error))
        except OSError as error:
            yield Problem(name, f"can't be read ({error.strerror})")


def merge_stores(places: Sequence[str], out: str) -> Manifest:
    """Copy the shards of several stores of one kind into a new one; with the lists of what they rejected.

    The same call completes one that was interrupted.

    Raises `DataError` if the stores differ, or if two have shards of the same source.
    """
    stores = [FeatureStore(place) for place in places]
    for store in stores[1:]:
        check_alike(stores[0], store)
    first = stores[0].manifest
    all_shards = [shard for store in stores for shard in store.manifest.shards]
    names = [shard.name for shard in all_shards]
    if twice := next((name for name, count in Counter(names).items() if count > 1), None):
        raise DataError(f"{out}: two stores have a shard {twice}; use them together as {','.join(places)} instead")
    folder = StoreFolder(out)
    with locked_store(folder):
        if _holds_store(folder):
            raise DataError(
                f"{folder.label}: is a store already; expected a new folder, or what an interrupted merge left"
            )
        plain = first.with_shards(
            (), complete=False, rejected=0, unread=(), captioned=all(s.manifest.captioned for s in stores)
        )
        writer = StoreWriter(folder, plain)
        with track("merge", len(all_shards), "shard") as advance:
            for store in stores:
                for shard in store.manifest.shards:
                    _copy(store.folder, folder, shard)
                    writer.done[shard.name] = shard
                    advance(1)
        return writer.finish(names, Rejects())


def _holds_store(folder: StoreFolder) -> bool:
    """Whether a folder has a store, or shards of one that is being encoded; an interrupted merge leaves neither."""
    if not folder.exists(MANIFEST):
        return False
    return parse_manifest(folder.read(MANIFEST, LARGEST), folder.where(MANIFEST)).complete or bool(records(folder))


def _copy(source: StoreFolder, target: StoreFolder, shard: ShardNote) -> None:
    names = [features_file(shard.name), index_file(shard.name)] if shard.images else []
    for name in [*names, *([rejected_file(shard.name)] if shard.rejected else [])]:
        target.write(name, [source.read(name)])


def write_embeddings(place: str, out: Path) -> int:
    """Write a store as clip-retrieval's folder, fp16: pooled vectors as they are, of several vectors an image their mean."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    store = FeatureStore(place)
    sources = [] if store.folder.remote else [store.folder.place]
    with new_folder(out, sources, overwrite=False) as folder:
        (folder / ARRAYS).mkdir()
        (folder / TABLES).mkdir()
        for part in range(len(store.parts)):
            with create(folder / ARRAYS / f"{ARRAYS}_{part}.npy") as file:
                np.save(file, mean_vectors(store, part).astype(np.float16))
            entries = [store.index(part).entry(row) for row in range(store.parts[part].images)]
            table = pa.table(
                {
                    "image_path": [entry.id for entry in entries],
                    "caption": [entry.captions[0] if entry.captions else None for entry in entries],
                }
            )
            with create(folder / TABLES / f"{TABLES}_{part}.parquet") as file:
                pq.write_table(table, file)
    return sum(part.images for part in store.parts)


def read_embeddings(place: str, out: str, encoder: Encoder) -> Manifest:
    """Make a store of clip-retrieval's folder, whose vectors are taken to be the pooled ones of `encoder`."""
    source = EmbeddingFolder(place)
    kind = source.features.dtype
    made = encoder.features(kind)
    if (made.tokens, made.width) != (1, source.features.width):
        raise DataError(
            f"{place}: holds vectors of {source.features.width} numbers, {encoder.note.name} makes {made.tokens} x {made.width}; "
            "name the encoder that made them"
        )
    folder = StoreFolder(out)
    with locked_store(folder):
        writer = StoreWriter(
            folder, first_manifest(encoder, made, False, None, max(part.images for part in source.parts))
        )
        names = []
        for part, number in enumerate(source.numbers):
            rows = IndexRows(
                [source.index(part).entry(row)._replace(content="0" * 32) for row in range(source.parts[part].images)]
            )
            name = f"{ARRAYS}_{number}"
            writer.write(FeatureShard(f"{name}.000", "all", name, "", 0, True, rows, [source.vectors(part)], Rejects()))
            names.append(f"{name}.000")
        return writer.finish(names, Rejects())


def mean_vectors(store: VectorStore, part: int) -> np.ndarray:
    """The mean vector of each image of a shard (images, D), fp32."""
    vectors, dtype = store.vectors(part), store.features.dtype
    blocks = (np.array(vectors[start : start + ROWS]) for start in range(0, len(vectors), ROWS))
    return torch.cat([as_tensor(block, dtype).float().mean(1) for block in blocks]).numpy()


def describe_store(place: str) -> dict[str, Any]:
    """What a store or an embedding folder holds, as plain values."""
    from captrain.data.readers.features import open_stores

    (store,) = open_stores([place])
    splits: dict[str, int] = {}
    for part in store.parts:
        splits[part.split] = splits.get(part.split, 0) + part.images
    found: dict[str, Any] = {
        "images": sum(part.images for part in store.parts), "captions": sum(part.captions for part in store.parts),
        "splits": splits, "shards": len(store.parts), "features": str(store.features),
        "bytes": sum(part.images for part in store.parts) * store.features.row_bytes,
        "encoder": None if store.encoder is None else str(store.encoder), "preparation": store.preparation,
    }  # fmt: skip
    if isinstance(store, FeatureStore):
        found |= {"rejected": store.manifest.counts()["rejected"], "unread": list(store.manifest.unread)}
    return found


class Neighbour(NamedTuple):
    """A stored picture: the cosine between its mean vector and the other's, its id and its captions."""

    cosine: float
    id: str
    captions: tuple[str, ...]


def search_store(
    places: Sequence[str], picture: Path, *, encoder: str | None = None, count: int = 10
) -> list[Neighbour]:
    """The pictures whose mean vectors are closest in direction to that of `picture`, nearest first.

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
        raise DataError(f"{store.label}: holds pixels that a training run cached; expected features")
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
        check_same_encoder(store.label, note, name, model.note.weights)
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

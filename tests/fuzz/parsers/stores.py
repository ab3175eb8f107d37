"""Feature stores, finished and unfinished, and embedding folders."""

from __future__ import annotations

import json
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np

from captrain.data.feature_store.embeddings import EmbeddingFolder
from captrain.data.feature_store.folder import StoreFolder
from captrain.data.feature_store.store import FeatureStore, VectorStore
from captrain.errors import CaptrainError
from fuzz.inputs import Parser
from fuzz.parsers.data import contract, read_data
from fuzz.workplace import Files

NEEDS = ("captrain.features.manage", "captrain.features.cache_arrays")


def _read_store(folder: Path) -> None:
    """All that looks into a store: `features info`, `features verify`, reading for training."""
    from captrain.features.manage import describe, verify

    verify(str(folder))
    json.dumps(describe(str(folder)), ensure_ascii=False).encode("utf-8")
    read_data(folder)
    _look_at(FeatureStore(str(folder)))


def _look_at(store: VectorStore) -> None:
    """Every row: its entry and its numbers."""
    for part, about in enumerate(store.parts):
        index, vectors = store.index(part), store.vectors(part)
        for row in range(min(about.images, 50)):
            index.entry(row)
        np.asarray(vectors[:50]).sum()
        index.counts()
        index.keys()


def _read_embeddings(folder: Path) -> None:
    read_data(folder)
    _look_at(EmbeddingFolder(str(folder)))


def _embeddings(folder: Path, kind: str = "float16") -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in ("img_emb", "metadata"):
        (folder / name).mkdir()
    for number in range(2):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", np.ones((2, 4), kind))
        rows = {"image_path": [f"{number}/a.jpg", f"{number}/b.jpg"], "caption": ["a dog", None]}
        pq.write_table(pa.table(rows), folder / "metadata" / f"metadata_{number}.parquet")


def _unfinished(folder: Path) -> None:
    """A store with records beside the manifest, as a kill leaves it."""
    from captrain.data.feature_store.manifest import EncoderNote, FeaturesNote, Manifest
    from captrain.data.feature_store.shard import Entry, IndexRows
    from captrain.data.feature_store.writer import Shard, write_shard
    from captrain.records import Rejects

    features = FeaturesNote(tokens=2, width=3, dtype="float16", vectors="all")
    manifest = Manifest(
        complete=False, encoder=EncoderNote(name="encoder", type="vit", weights="00"), preparation={"size": 3},
        preparation_version=1, features=features, captioned=False, max_words=None, shard_images=1000,
    )  # fmt: skip
    place = StoreFolder(str(folder))
    place.write("manifest.json", [manifest.to_json()])
    for number in range(2):
        rows = IndexRows([Entry(f"{number}/a", ("a dog",), "a", f"{number:032x}")])
        shard = Shard(f"{number:05}.000", "all", "a", "", 0, True, rows, [np.ones((1, 2, 3), np.float16)], Rejects())
        write_shard(place, features, shard)


def _open_unfinished(folder: Path) -> None:
    """As a training that keeps features on disk, and an encoding, go on with it."""
    from captrain.data.feature_store.manifest import MANIFEST, parse_manifest
    from captrain.data.feature_store.writer import StoreWriter
    from captrain.features.cache_arrays import DiskStore

    manifest = parse_manifest(StoreFolder(str(folder)).read(MANIFEST), MANIFEST)
    refused = None
    for make in (
        partial(DiskStore, folder, manifest, (2, 3)),
        partial(StoreWriter, StoreFolder(str(folder)), manifest),
    ):
        try:
            store = make()
            if isinstance(store, DiskStore):
                store.rows(list(store.index))
        except CaptrainError as error:
            refused = error
    if refused:
        raise refused


def _lock(folder: Path) -> None:
    """A lock that a process left which died."""
    from captrain.disk.locks import lock_of
    from captrain.disk.owner import Owner

    (folder / "out.jsonl").write_text("")
    lock_of(folder / "out.jsonl").write_bytes(Owner.me().to_json())


def _take_lock(folder: Path) -> None:
    from captrain.disk.locks import locked

    with locked(folder / "out.jsonl"):
        pass


def _stated(files: Files) -> Files:
    """The manifest with the sizes and checksums of the files as they are, so that readers get to them."""
    try:
        manifest = json.loads(files["manifest.json"])
        for shard in manifest["shards"]:
            numbers, index = (files[f"shards/{shard['name']}.{ending}"] for ending in ("safetensors", "arrow"))
            shard |= {
                "bytes": len(numbers),
                "features": sha256(numbers).hexdigest(),
                "index": sha256(index).hexdigest(),
            }
        manifest["counts"]["bytes"] = sum(shard["bytes"] for shard in manifest["shards"])
        return files | {"manifest.json": json.dumps(manifest).encode()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return files


PARSERS = (
    Parser("store", _read_store, {"features": contract("features")}, quick=40, needs=NEEDS, mend=_stated),
    Parser("store unfinished", _open_unfinished, {"records": _unfinished}, quick=40, needs=NEEDS, writes=True),
    Parser("lock", _take_lock, {"dead": _lock}, quick=60, needs=("captrain.disk.locks",), writes=True),
    Parser(
        "store embeddings",
        _read_embeddings,
        {"float16": _embeddings, "float32": partial(_embeddings, kind="float32")},
        quick=40,
        needs=NEEDS,
    ),
)

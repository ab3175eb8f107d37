"""Writing a feature store: one writer at a time, a shard at a time, the manifest last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from captrain.data.feature_store.layout import (
    EARLIER,
    LARGEST,
    MANIFEST,
    REJECTED,
    SHARDS,
    FeaturesNote,
    Manifest,
    ShardNote,
    StoreFolder,
    features_file,
    index_file,
    is_temporary,
    parse_manifest,
    parse_shard,
    record_file,
    rejected_file,
)
from captrain.data.feature_store.shard import IndexRows, shard_header
from captrain.disk.lock_owner import LARGEST as LARGEST_OWNER
from captrain.disk.lock_owner import Owner
from captrain.disk.locks import FOLDER_LOCK, locked_folder
from captrain.disk.temporary_files import clear_litter
from captrain.errors import BusyError, DataError
from captrain.records import Rejects

SHARD_BYTES = 256 << 20
MOST_IMAGES = 16384  # of a shard


@dataclass(slots=True)
class FeatureShard:
    """A finished shard in memory: where it is from, its index, its numbers (each (images, N, D), bf16 as bits) and rejects."""

    name: str
    split: str
    source: str
    fingerprint: str
    part: int
    last: bool
    rows: IndexRows
    blocks: Sequence[np.ndarray]
    rejects: Rejects


class StoreWriter:
    """Writes shards into a store's folder and, at the end, its manifest.

    `done` holds the shards that are there already, by name, from an earlier start with the same manifest.
    """

    def __init__(self, folder: StoreFolder, manifest: Manifest) -> None:
        """Begin a store, or go on with one. Raises `DataError` if the folder holds a store of other settings."""
        self.folder = folder
        found = _found(folder)
        if found is not None:
            _check_same(folder, found, manifest)
            manifest = manifest.with_shards(found.shards, complete=found.complete)
        elif any(name != FOLDER_LOCK and not is_temporary(name) for name in folder.names("")):
            raise DataError(f"{folder.label}: holds other files; expected a new folder, or a store to go on with")
        self.manifest = manifest
        self.done = {shard.name: shard for shard in manifest.shards}
        remove_temporary(folder)
        for record in records(folder):
            shard = read_record(folder, record)
            self.done[shard.name] = shard
        if found is None:
            folder.write(MANIFEST, [manifest.to_json()])

    def forget(self, names: Iterable[str]) -> None:
        """Take shards back, because their sources changed: until they are done again the store is not complete."""
        for name in names:
            self.done.pop(name, None)
        self.manifest = self.manifest.with_shards(self.done.values(), complete=False)
        self.folder.write(MANIFEST, [self.manifest.to_json()])
        for name in names:
            self.folder.remove(record_file(name))

    def write(self, shard: FeatureShard) -> ShardNote:
        """Write a shard's files, and last its record."""
        note = write_shard(self.folder, self.manifest.features, shard)
        self.done[shard.name] = note
        return note

    def finish(self, names: Sequence[str], rejects: Rejects, unread: Sequence[str] = ()) -> Manifest:
        """Write the list of all rejects and the manifest of the named shards, in that order; then records may go."""
        shards = [self.done[name] for name in names]
        listed = [rejected_file(shard.name) for shard in shards if shard.rejected]
        if rejects or listed:
            self.folder.write(REJECTED, self._all_rejects(rejects, listed))
        else:
            self.folder.remove(REJECTED)
        manifest = self.manifest.with_shards(shards, complete=True, rejected=len(rejects), unread=tuple(unread))
        self.folder.write(MANIFEST, [manifest.to_json()])
        for record in records(self.folder):
            self.folder.remove(record)
        remove_temporary(self.folder)
        return manifest

    def _all_rejects(self, rejects: Rejects, listed: Iterable[str]) -> Iterator[bytes]:
        yield from _lines(rejects)
        for name in listed:
            yield self.folder.read(name)


def images_a_shard(features: FeaturesNote) -> int:
    """How many images a shard holds at most.

    >>> images_a_shard(FeaturesNote(tokens=257, width=1024, dtype="float16", vectors="all"))
    510
    """
    return max(1, min(MOST_IMAGES, SHARD_BYTES // features.row_bytes))


def write_shard(folder: StoreFolder, features: FeaturesNote, shard: FeatureShard) -> ShardNote:
    """Write a shard's files, and last its record: when that can be seen, the shard is whole."""
    images, rejected = len(shard.rows), len(shard.rejects)
    numbers = index = ""
    size = 0
    if images:
        chunks: list[bytes | memoryview] = [shard_header(images, features), *map(_bytes, shard.blocks)]
        numbers, size = _digest(chunks), sum(len(chunk) for chunk in chunks)
        table = shard.rows.to_bytes()
        index = _digest([table])
        folder.write(features_file(shard.name), chunks)
        folder.write(index_file(shard.name), [table])
    if rejected:
        folder.write(rejected_file(shard.name), _lines(shard.rejects))
    else:
        folder.remove(rejected_file(shard.name))
    note = ShardNote(
        name=shard.name, split=shard.split, source=shard.source, fingerprint=shard.fingerprint, part=shard.part,
        last=shard.last, images=images, captions=shard.rows.captions(), bare=shard.rows.bare(), rejected=rejected,
        bytes=size, features=numbers, index=index,
    )  # fmt: skip
    folder.write(record_file(shard.name), [(note.model_dump_json() + "\n").encode()])
    return note


def records(folder: StoreFolder) -> list[str]:
    """The files of all records that are there."""
    return [f"{SHARDS}/{name}" for name in folder.names(SHARDS) if name.endswith(".json")]


def read_record(folder: StoreFolder, record: str) -> ShardNote:
    """A record from its file. Raises `DataError` if it is none."""
    return parse_shard(folder.read(record, LARGEST), folder.where(record))


def remove_temporary(folder: StoreFolder, *, alone: bool = True) -> None:
    """Remove what a killed writer left half written. Unless this one is `alone`, what others may be writing stays."""
    for below in ("", SHARDS):
        if not (alone or folder.remote):
            clear_litter(Path(folder.place, below), shared=True)
        for name in folder.names(below):
            if is_temporary(name) and (alone or name.endswith(EARLIER)):
                folder.remove(f"{below}/{name}".lstrip("/"))


@contextmanager
def locked_store(folder: StoreFolder) -> Iterator[None]:
    """Be the only writer of a store's folder. Raises `BusyError` while another process is; a dead one's lock is taken over."""
    if not folder.remote:
        with locked_folder(Path(folder.place)):
            yield
        return
    me = Owner.me().to_json()
    _check_free(folder)
    folder.write(FOLDER_LOCK, [me])
    if folder.read(FOLDER_LOCK, LARGEST_OWNER) != me:  # object stores have no exclusive creation: the last one has it
        _check_free(folder)
    try:
        yield
    finally:
        folder.remove(FOLDER_LOCK)


def _check_free(folder: StoreFolder) -> None:
    """Raise `BusyError` if a lock behind a URL names a process that may be alive."""
    if not folder.exists(FOLDER_LOCK):
        return
    where = folder.where(FOLDER_LOCK)
    owner = Owner.parse(folder.read(FOLDER_LOCK, LARGEST_OWNER))
    if owner is None:
        raise DataError(f"{where}: not a lock that captrain wrote; remove it if nothing writes this store")
    if not owner.is_dead():
        hint = "" if owner.is_dead() is False else f", or remove {where} if it has died"
        raise BusyError(f"{folder.label}: is being written by {owner}; wait until it is done{hint}")


def _found(folder: StoreFolder) -> Manifest | None:
    if not folder.exists(MANIFEST):
        return None
    return parse_manifest(folder.read(MANIFEST, LARGEST), folder.where(MANIFEST))


def _check_same(folder: StoreFolder, found: Manifest, wanted: Manifest) -> None:
    """Raise `DataError` naming what differs, unless a store was begun with these settings."""
    if found.encoder.weights != wanted.encoder.weights:
        raise DataError(
            f"{folder.label}: holds features of {found.encoder}, not of {wanted.encoder}; choose another folder"
        )
    for name in ("preparation", "preparation_version", "features", "captioned", "max_words", "shard_images"):
        old, new = getattr(found, name), getattr(wanted, name)
        if old != new:
            raise DataError(
                f"{folder.label}: holds a store with {name.replace('_', ' ')} {old}, not {new}; choose another folder, or "
                "give the options that it was begun with"
            )


def _bytes(block: np.ndarray) -> memoryview:
    flat = np.ascontiguousarray(block).reshape(-1).view(np.uint8)
    return flat.data


def _digest(chunks: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _lines(rejects: Rejects) -> Iterator[bytes]:
    return ((json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "replace") for line in rejects.lines)

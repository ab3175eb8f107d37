"""The files of a feature store: the folder that holds them, and the manifest that describes them.

A store is a folder, local or behind a URL:

    manifest.json                  the encoder, the preparation of pictures, the shape of features, and one line per shard
    shards/00000.000.safetensors   "features" (images, N, D), bf16, fp16 or fp32
    shards/00000.000.arrow         for each of these images its id, captions, source, offset in the shard and keys
    shards/00000.000.rejected.jsonl   what could not be used of the shard's source, if anything
    rejected.jsonl                 all of that in one file

A file that can be seen in the folder is complete. The manifest is written last. While a store is being written, the first
manifest says that it is not complete, and each finished shard has a record of its own, `shards/00000.000.json`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from captrain.data.safe_paths import is_remote
from captrain.data.shards.remote import protocol_of, shown_url, told_error
from captrain.disk.folders import check_way, make_folders, remove
from captrain.disk.reading import read_file
from captrain.disk.temporary_files import TEMPORARY
from captrain.disk.writing import new_file
from captrain.errors import DataError
from captrain.paths import cache_folder

MANIFEST = "manifest.json"
FORMAT = "captrain-features"
SHARDS = "shards"
REJECTED = "rejected.jsonl"
LARGEST = 1 << 30  # bytes of a manifest

Count = Annotated[int, Field(ge=0)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=200)]
Digest = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")]

ITEM_SIZES = {"bfloat16": 2, "float16": 2, "float32": 4, "uint8": 1}
"""Bytes of a number, by kind."""


class StrictNote(BaseModel):
    """The base of all parts: no unknown keys, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class EncoderNote(StrictNote):
    """The encoder that made the features. `weights` is a digest of the image half's weights, rounded to bf16."""

    name: str
    type: str = ""
    revision: str | None = None
    weights: str

    def __str__(self) -> str:
        return f"{self.name} ({self.type}, weights {self.weights[:12]})"


class FeaturesNote(StrictNote):
    """What a picture's features look like: N = `tokens` vectors of `width` numbers, of L2 norm 1 if `normalized`.

    `pixels` are those of a prepared picture, row by row, in a store that a training keeps while its encoder learns.
    """

    tokens: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    dtype: Literal["bfloat16", "float16", "float32", "uint8"]
    vectors: Literal["all", "pooled", "pixels"]
    normalized: bool = False

    @property
    def row_bytes(self) -> int:
        """Bytes of a picture's features."""
        return self.tokens * self.width * ITEM_SIZES[self.dtype]

    def __str__(self) -> str:
        kind = f"{self.vectors}{', normalised' if self.normalized else ''}"
        return f"{self.tokens} x {self.width} {self.dtype} ({kind})"


class ShardNote(StrictNote):
    """One shard: part number `part` of a source (the `last` or not), what is in it, and SHA-256 of its two files.

    `bare` counts images without captions. A shard without images has no files.
    """

    name: Name
    split: str
    source: str
    fingerprint: str
    part: Count
    last: bool
    images: Count
    captions: Count
    bare: Count
    rejected: Count
    bytes: Count
    features: Digest
    index: Digest


class Manifest(StrictNote):
    """A store's manifest. `unread` names sources that could not be read (to the end); the same command tries them again."""

    format: Literal["captrain-features"] = "captrain-features"
    version: Literal[1] = 1
    complete: bool
    encoder: EncoderNote
    preparation: dict[str, Any]
    preparation_version: int
    features: FeaturesNote
    captioned: bool
    max_words: int | None
    shard_images: Annotated[int, Field(ge=1)]
    rejected: Count = 0
    unread: tuple[str, ...] = ()
    shards: tuple[ShardNote, ...] = ()

    def counts(self) -> dict[str, int]:
        """Totals over all shards; `rejected` counts what was met when the data set was listed as well."""
        totals = {
            name: sum(getattr(shard, name) for shard in self.shards)
            for name in ("images", "captions", "rejected", "bytes")
        }
        return {"shards": len(self.shards), **totals, "rejected": totals["rejected"] + self.rejected}

    def to_json(self) -> bytes:
        """The file's content, with totals for human readers."""
        content = self.model_dump(mode="json")
        content["counts"] = self.counts()
        return (json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()

    def with_shards(self, shards: Iterable[ShardNote], **changes: Any) -> Manifest:
        """The same manifest for other shards."""
        return self.model_copy(update={"shards": tuple(shards), **changes})


def parse_manifest(data: bytes, where: str) -> Manifest:
    """A manifest from its bytes. Raises `DataError`, naming `where`, for one that is not, or that contradicts itself."""
    try:
        content = json.loads(data)
        counts = content.pop("counts", None)
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(
            f"{where}: not a manifest that is read ({place}: {first['msg']}); write the store again"
        ) from None
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise DataError(f"{where}: not a manifest ({str(error)[:200]}); expected what captrain encode writes") from None
    if counts != manifest.counts():
        raise DataError(f"{where}: its counts are not the sums of its shards; write the store again")
    names = [shard.name for shard in manifest.shards]
    if len(set(names)) < len(names):
        raise DataError(f"{where}: names a shard twice; write the store again")
    return manifest


def parse_shard(data: bytes, where: str) -> ShardNote:
    """A shard's record from its bytes."""
    try:
        return ShardNote.model_validate_json(data)
    except ValidationError as error:
        raise DataError(
            f"{where}: not a shard's record ({error.errors()[0]['msg']}); remove it, and its shard is done again"
        ) from None


def features_file(name: str) -> str:
    """Where a shard's features are, from the store's folder.

    >>> features_file("00000.000")
    'shards/00000.000.safetensors'
    """
    return f"{SHARDS}/{name}.safetensors"


def index_file(name: str) -> str:
    """Where a shard's index is."""
    return f"{SHARDS}/{name}.arrow"


def record_file(name: str) -> str:
    """Where a finished shard's record is until the manifest has it."""
    return f"{SHARDS}/{name}.json"


def rejected_file(name: str) -> str:
    """The file that lists what could not be used in a shard."""
    return f"{SHARDS}/{name}.rejected.jsonl"


EARLIER = ".tmp"  # how temporary names ended before


class StoreFolder:
    """Files below a folder or URL, by their names with slashes."""

    def __init__(self, place: str) -> None:
        self.place = place.rstrip("/") or place
        if self.place.startswith("file://"):
            self.place = self.place.removeprefix("file://")
        self.remote = is_remote(self.place)
        if self.remote:
            protocol_of(self.place)

    @property
    def label(self) -> str:
        """The place without credentials, to show to people."""
        return shown_url(self.place)

    def where(self, name: str) -> str:
        """A file's place without credentials, to show to people."""
        return f"{self.label}/{name}"

    def exists(self, name: str) -> bool:
        """Whether a file is there."""
        if not self.remote:
            return os.path.isfile(self._path(name))
        with told_error(self.where(name)):
            system, path = self._system(name)
            return bool(system.isfile(path))

    def size(self, name: str) -> int:
        """Bytes of a file. Raises `DataError` if it is not there."""
        if not self.remote:
            try:
                return os.stat(self._path(name)).st_size
            except OSError as error:
                raise DataError(f"{self.where(name)}: {_missing(error)}") from None
        with told_error(self.where(name)):
            system, path = self._system(name)
            return int(system.size(path))

    def read(self, name: str, most: int | None = None) -> bytes:
        """A file's bytes. Raises `DataError` if it is not there, or has more than `most` bytes."""
        if most is not None and (size := self.size(name)) > most:
            raise DataError(f"{self.where(name)}: has {size} bytes, over {most}; expected a small file")
        if not self.remote:
            try:
                return read_file(self._path(name))
            except OSError as error:
                raise DataError(f"{self.where(name)}: {_missing(error)}") from None
        with told_error(self.where(name)):
            system, path = self._system(name)
            return cast(bytes, system.cat_file(path))

    def write(self, name: str, chunks: Iterable[bytes | memoryview]) -> None:
        """Write a file under a temporary name, then rename; behind a URL in one upload. Nothing half-written is seen."""
        if self.remote:
            with told_error(self.where(name)):
                system, path = self._system(name)
                system.makedirs(path.rpartition("/")[0], exist_ok=True)
                system.pipe_file(path, b"".join(chunks))
            return
        final = self._path(name)
        try:
            make_folders(final.parent, Path(self.place))
            with new_file(final, clear=False) as file:  # `feature_store.writer.remove_temporary` does
                file.writelines(chunks)
        except OSError as error:
            error.filename = error.filename or str(final)
            raise

    def names(self, folder: str) -> list[str]:
        """Names of the files right below a folder, sorted; none if it is not there."""
        if not self.remote:
            path = self._path(folder)
            return sorted(entry.name for entry in os.scandir(path) if os.path.isfile(entry)) if path.is_dir() else []
        with told_error(self.where(folder)):
            system, below = self._system(folder)
            if not system.isdir(below):
                return []
            return sorted(str(name).rpartition("/")[2] for name in system.ls(below, detail=False))

    def remove(self, name: str) -> None:
        """Delete a file if it is there."""
        if not self.remote:
            check_way(self._path(name).parent, Path(self.place))
            remove(self._path(name))
        elif self.exists(name):
            with told_error(self.where(name)):
                system, path = self._system(name)
                system.rm_file(path)

    def local(self, name: str, checksum: str) -> Path:
        """A file to be memory-mapped; one behind a URL is copied once into captrain's cache folder."""
        if not self.remote:
            return self._path(name)
        digest = hashlib.blake2b(f"{self.place}\n{name}\n{checksum}".encode(), digest_size=16).hexdigest()
        copy = cache_folder() / "stores" / f"{digest}-{name.rpartition('/')[2]}"
        if not copy.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            with new_file(copy) as file, told_error(self.where(name)):
                system, remote = self._system(name)
                system.get_file(remote, str(file.name))
        return copy

    def _path(self, name: str) -> Path:
        return Path(self.place, name)

    def _system(self, name: str) -> tuple[Any, str]:
        import fsspec.core

        return cast(tuple[Any, str], fsspec.core.url_to_fs(f"{self.place}/{name}"))


def is_temporary(name: str) -> bool:
    """Whether a file of that name is one that is being written, or was left by a killed writer.

    >>> is_temporary("manifest.json.12ab34cd.tmp"), is_temporary("manifest.json")
    (True, False)
    """
    return name.endswith(EARLIER) or TEMPORARY.fullmatch(name) is not None


def _missing(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "not found, though the store should have it; copy it again, or encode again"
    return f"can't be read ({error.strerror})"

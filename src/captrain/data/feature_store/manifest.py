"""What a feature store says of itself: `manifest.json`.

A store is a folder, local or behind a URL:

    manifest.json                  the encoder, the preparation of pictures, the shape of features, and a line a shard
    shards/00000.000.safetensors   "features" (images, N, D), bf16, fp16 or fp32
    shards/00000.000.arrow         for each of these images its id, captions, source, offset in the shard and keys
    shards/00000.000.rejected.jsonl   what of the shard's source could not be used, where there was such a thing
    rejected.jsonl                 all of that in one file

The manifest is written last. While a store is being written, the first manifest says that it is not complete, and each finished
shard has a record of its own, `shards/00000.000.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from captrain.errors import DataError

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
    """What all parts share: no unknown keys, no changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class EncoderNote(StrictNote):
    """Whose features these are. `weights` is a digest of the image half's weights, rounded to bf16."""

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
        """As the file has it; totals come along for those who look into it."""
        content = self.model_dump(mode="json")
        content["counts"] = self.counts()
        return (json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()

    def with_shards(self, shards: Iterable[ShardNote], **changes: Any) -> Manifest:
        """The same about other shards."""
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
    """Where it is listed what of a shard could not be used."""
    return f"{SHARDS}/{name}.rejected.jsonl"

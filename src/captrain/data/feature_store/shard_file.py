"""The features of a shard: one tensor in a safetensors file, written and mapped without torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from captrain.data.feature_store.manifest import FeaturesNote
from captrain.disk.reading import open_file
from captrain.errors import DataError

TENSOR = "features"
LARGEST_HEADER = 1 << 20

NUMBERS = {
    "bfloat16": ("BF16", np.uint16),
    "float16": ("F16", np.float16),
    "float32": ("F32", np.float32),
    "uint8": ("U8", np.uint8),
}
"""Kind of number → its name in safetensors, and how numpy holds it: it has no bf16, so that comes as bits."""


def shard_header(images: int, features: FeaturesNote) -> bytes:
    """The bytes before the numbers: a length and a JSON object, padded to a multiple of 64 so that rows are aligned."""
    shape = [images, features.tokens, features.width]
    tensor = {"dtype": NUMBERS[features.dtype][0], "shape": shape, "data_offsets": [0, images * features.row_bytes]}
    text = json.dumps({TENSOR: tensor}).encode()
    text += b" " * (-(len(text) + 8) % 64)
    return len(text).to_bytes(8, "little") + text


def map_shard(path: Path, where: str, images: int, features: FeaturesNote) -> np.ndarray:
    """A shard's numbers (images, N, D), read when they are looked at; bf16 as uint16 bits.

    Raises `DataError` if the file is not what the manifest says.
    """
    expected = shard_header(images, features)
    try:
        with open_file(path) as file:
            length = int.from_bytes(file.read(8), "little")
            header = file.read(min(length, LARGEST_HEADER))
        size = path.stat().st_size
    except OSError as error:
        raise DataError(
            f"{where}: can't be read ({error.strerror}); copy it again, or encode its source again"
        ) from None
    found = _tensor(header)
    begin, end = 8 + length, 8 + length + images * features.row_bytes
    if found != _tensor(expected[8:]) or size != end:
        raise DataError(
            f"{where}: holds {size} bytes of {json.dumps(found)[:200] if found else 'no features'}, its manifest says "
            f"{images} x {features}; copy it again, or encode its source again"
        )
    shape = (images, features.tokens, features.width)
    mapped = np.memmap(path, NUMBERS[features.dtype][1], "r", begin, shape)
    return np.asarray(mapped)  # a plain array on the same pages: each row of a memmap would cost a Python call


def checksum(path: Path) -> str:
    """SHA-256 of a file, as `sha256sum` prints it."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tensor(header: bytes) -> dict[str, object] | None:
    """What a header says of the features."""
    try:
        found = json.loads(header)
        return dict(found[TENSOR])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None

"""Changes of bytes: anywhere, or inside of what a format wraps, where checksums and lengths are put right afterwards."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from random import Random

from fuzz import containers, texts

INTERESTING = (
    0,
    1,
    2,
    4,
    7,
    8,
    15,
    16,
    32,
    64,
    100,
    127,
    128,
    255,
    256,
    511,
    512,
    1000,
    1024,
    4096,
    32767,
    32768,
    65535,
)
EXTREMES = (2**31 - 1, 2**31, 2**32 - 1, 2**24, 2**20, 2**28, 2**63 - 1, 2**63, 2**64 - 1, 2**40)
LARGEST = 1 << 20
"""Bytes that an input grows to at most: memory is to be used by readers, not by what they read."""

Mutator = Callable[[bytes, Random], bytes]

INSIDE: dict[str, Mutator] = {
    "json": texts.json_tree,
    "jsonl": texts.json_line,
    "yaml": texts.yaml_tree,
    "toml": texts.lines,
    "csv": texts.cells,
    "text": texts.lines,
    "png": containers.png,
    "jpeg": containers.jpeg,
    "tiff": containers.tiff,
    "zip": containers.zipped,
    "gzip": containers.gzipped,
    "tar": containers.tarred,
    "safetensors": containers.safetensors,
    "parquet": containers.parquet,
    "arrow": containers.arrow,
    "npy": containers.npy,
}
"""For each kind of file the change that knows its form."""

KINDS = {
    ".json": "json", ".jsonl": "jsonl", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".csv": "csv", ".tsv": "csv",
    ".txt": "text", ".token": "text", ".lst": "text", ".caption": "text", ".md": "text", ".jinja": "text", ".png": "png",
    ".jpg": "jpeg", ".tif": "tiff", ".zip": "zip", ".gz": "gzip", ".tar": "tar", ".safetensors": "safetensors",
    ".parquet": "parquet", ".arrow": "arrow", ".npy": "npy",
}  # fmt: skip


def mutated(content: bytes, kind: str, rng: Random, donors: Sequence[bytes]) -> bytes:
    """One to four changes of a file; `donors` are other files that parts may be taken from."""
    inside = INSIDE.get(kind)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4))):
        if inside is not None and rng.random() < 0.7:
            try:
                content = inside(content, rng)
                continue
            except Exception:  # no longer of its form: it is changed as bytes
                pass
        content = change_bytes(content, rng, donors)
    return content[:LARGEST]


def change_bytes(content: bytes, rng: Random, donors: Sequence[bytes] = ()) -> bytes:
    """One change that knows nothing of the form."""
    if not content:
        return rng.choice((b"\0", b"\xff" * 64, b"a", *donors))[:LARGEST]
    return rng.choice(BLIND)(content, rng, donors)


def _flip(content: bytes, rng: Random, donors: Sequence[bytes]) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[_near_an_end(len(changed), rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _set(content: bytes, rng: Random, donors: Sequence[bytes]) -> bytes:
    at = _near_an_end(len(content), rng)
    return content[:at] + bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))]) + content[at + 1 :]


def _number(content: bytes, rng: Random, donors: Sequence[bytes]) -> bytes:
    """Write an extreme whole number over some bytes: lengths, counts and offsets are that."""
    form = rng.choice(("B", "<H", ">H", "<I", ">I", "<I", ">I", "<Q", ">Q"))
    width = struct.calcsize(form)
    number = rng.choice((*INTERESTING, *EXTREMES, len(content), max(len(content) - 1, 0))) % 256**width
    at = _near_an_end(len(content), rng)
    return content[:at] + struct.pack(form, number) + content[at + width :]


def _cut(content: bytes, rng: Random, donors: Sequence[bytes]) -> bytes:
    start, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    return content[:start] + content[end:] if rng.random() < 0.5 else content[:end]


def _repeat(content: bytes, rng: Random, donors: Sequence[bytes]) -> bytes:
    start, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    part = content[start:end][:4096]
    return content[:end] + part * rng.choice((1, 2, 16, 64)) + content[end:]


def _splice(content: bytes, rng: Random, donors: Sequence[bytes]) -> bytes:
    other = rng.choice(donors) if donors else content
    start, at = rng.randrange(len(other) + 1), rng.randrange(len(content) + 1)
    part = other[start : start + rng.choice((4, 64, 1024, 65536))]
    return content[:at] + part + content[at + (len(part) if rng.random() < 0.5 else 0) :]


def _swap(content: bytes, rng: Random, donors: Sequence[bytes]) -> bytes:
    a, b, c = sorted(rng.randrange(len(content) + 1) for _ in range(3))
    return content[:a] + content[b:c] + content[a:b] + content[c:]


BLIND = (_flip, _flip, _set, _number, _number, _cut, _repeat, _splice, _swap)


def _near_an_end(length: int, rng: Random) -> int:
    """A place, more often in the first or the last bytes, where headers and directories are."""
    where = rng.random()
    if where < 0.4:
        return rng.randrange(min(length, 64))
    return length - 1 - rng.randrange(min(length, 128)) if where < 0.55 else rng.randrange(length)

"""Picture files: what a name says (a picture, a format that is not read, a hidden file), and the key of a file's content.

By the key of its content, a picture that was renamed or copied is recognised.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from captrain.data.samples import contents_of
from captrain.disk.walking import is_hidden
from captrain.records import Sample

__all__ = ["is_hidden", "is_unicode", "split_suffix", "suffix_of_brands", "suffix_of_content", "unread"]

HEIF_SUFFIXES = frozenset({".heic", ".heif"})
HAS_HEIF = importlib.util.find_spec("pillow_heif") is not None
HEIF_NEEDED = "pip install 'captrain[heif]' to read it, or convert it to JPEG"

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff"}
) | (HEIF_SUFFIXES if HAS_HEIF else frozenset())
UNREAD_SUFFIXES = (
    frozenset({".heic", ".heif", ".jxl", ".jp2", ".svg", ".psd", ".cr2", ".nef", ".arw", ".dng"}) - IMAGE_SUFFIXES
)

LONGEST_MARK = 64  # bytes of a file's beginning that tell what it is

_MARKS = {  # first bytes → usual ending
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG\r\n\x1a\n": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\x00": ".tif",
    b"MM\x00*": ".tif",
    b"II+\x00": ".tif",  # BigTIFF
    b"MM\x00+": ".tif",
}


def is_unicode(name: str) -> bool:
    """Whether a file's name can be written in UTF-8: on Linux it may be any bytes."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def split_suffix(name: str) -> tuple[str, str]:
    """A name without its picture's ending, and that ending in lower case; "" if it has none.

    >>> split_suffix("a/dog.JPG"), split_suffix("22.05"), split_suffix("dog.txt")
    (('a/dog', '.jpg'), ('22.05', ''), ('dog.txt', ''))
    """
    stem, suffix = os.path.splitext(name)
    suffix = suffix.lower()
    return (stem, suffix) if suffix in IMAGE_SUFFIXES else (name, "")


def suffix_of_content(beginning: bytes) -> str:
    """The usual ending of a picture's form, by its first `LONGEST_MARK` bytes; "" for what is not a picture.

    >>> suffix_of_content(b"\\xff\\xd8\\xff\\xe0"), suffix_of_content(b"RIFF....WEBPVP8 "), suffix_of_content(b"-----BEGIN")
    ('.jpg', '.webp', '')
    """
    if beginning.startswith(b"RIFF") and beginning[8:12] == b"WEBP":
        return ".webp"
    if beginning[4:8] == b"ftyp":
        return suffix_of_brands(beginning)
    return next((suffix for mark, suffix in _MARKS.items() if beginning.startswith(mark)), "")


def suffix_of_brands(beginning: bytes) -> str:
    """Which of the pictures in ISO containers a file is: ".avif", ".heic", or "" for a film.

    >>> [suffix_of_brands(b"\\0\\0\\0\\x1cftyp" + brands) for brands in (b"avif", b"mif1\\0\\0\\0\\0mif1heic", b"isom")]
    ['.avif', '.heic', '']
    """
    brands = {beginning[place : place + 4] for place in range(8, min(len(beginning), beginning[3] or 32), 4)}
    if brands & {b"avif", b"avis"}:
        return ".avif"
    return ".heic" if brands & {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"} else ""


def unread(suffix: str) -> str:
    """Why a picture with one of `UNREAD_SUFFIXES` is not read, worded to follow its name."""
    next_step = HEIF_NEEDED if suffix.lower() in HEIF_SUFFIXES else "convert it to JPEG"
    return f"is a {suffix} file, which is not read; {next_step}"


MOST = 100_000
"""Pictures that are read, or of which sizes are looked at, only to be told apart."""


def content_key(data: bytes) -> str:
    """A picture's key: 128 bits of BLAKE2 over its encoded bytes.

    >>> content_key(b"")
    'cae66941d9efbd404e4d88758ea67670'
    """
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def content_keys(samples: Sequence[Sample]) -> list[str] | None:
    """The content key of each picture, "" of one that can't be read.

    None of more than `MOST` pictures, which would all have to be read, and of features whose store does not know their pictures.
    """
    if (known := contents_of(samples)) is not None:
        return list(known)
    keys = [_key_of(sample) for sample in samples] if len(samples) <= MOST else []
    return keys if any(keys) else None


def size_of(sample: Sample) -> int | None:
    """Bytes of an encoded picture, without reading it; -1 of one that is not there, None if that is not known."""
    image = sample.image
    if isinstance(image, bytes):
        return len(image)
    if not isinstance(image, Path):
        return getattr(image, "size", None)
    try:
        return os.stat(image).st_size
    except OSError:
        return -1


def _key_of(sample: Sample) -> str:
    try:
        return content_key(sample.read())
    except (OSError, ValueError):
        return ""

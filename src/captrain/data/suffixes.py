"""What a file's name says: whether it is a picture that is read, one that is not, or the system's own."""

from __future__ import annotations

import os

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
UNREAD_SUFFIXES = frozenset({".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".psd", ".cr2", ".nef", ".arw", ".dng"})

LONGEST_MARK = 16  # bytes of a file's beginning that tell what it is

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
_SYSTEM_FOLDERS = frozenset(
    {"__MACOSX", "@eaDir"}
)  # resource forks and thumbnails that macOS and Synology leave behind


def is_hidden(name: str) -> bool:
    """Whether a file or folder is the system's, not the user's: ".cache", "._dog.jpg", "__MACOSX".

    >>> [is_hidden(name) for name in ("._dog.jpg", "dog.jpg")]
    [True, False]
    """
    return name.startswith(".") or name in _SYSTEM_FOLDERS


def is_unicode(name: str) -> bool:
    """Whether a file's name can be written in UTF-8: on Linux it may be any bytes."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def split_suffix(name: str) -> tuple[str, str]:
    """A name without its picture's ending, and that ending in small letters; "" where it has none.

    >>> split_suffix("a/dog.JPG"), split_suffix("22.05"), split_suffix("dog.txt")
    (('a/dog', '.jpg'), ('22.05', ''), ('dog.txt', ''))
    """
    stem, suffix = os.path.splitext(name)
    suffix = suffix.lower()
    return (stem, suffix) if suffix in IMAGE_SUFFIXES else (name, "")


def suffix_of_content(beginning: bytes) -> str:
    """The usual ending of a picture's form, by its first `LONGEST_MARK` bytes; "" for what is no picture.

    >>> suffix_of_content(b"\\xff\\xd8\\xff\\xe0"), suffix_of_content(b"RIFF....WEBPVP8 "), suffix_of_content(b"-----BEGIN")
    ('.jpg', '.webp', '')
    """
    if beginning.startswith(b"RIFF") and beginning[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for mark, suffix in _MARKS.items() if beginning.startswith(mark)), "")

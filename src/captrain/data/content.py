"""Pictures told by what is in their files: a picture that was renamed or copied is known again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from captrain.data.samples import contents_of
from captrain.records import Sample

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
    """Bytes of an encoded picture, without reading it; -1 of one that is not there, None where that is not known."""
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

"""Files behind URLs: opened by fsspec, or copied once into captrain's cache folder where any part may be asked for at any time.

Each kind of URL needs a package of its own (s3fs for s3://), which the user installs. Only the kinds of `BACKENDS` are
read: fsspec knows others, which open archives in archives, other machines and more.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from captrain.data.safe_paths import is_remote
from captrain.disk.writing import new_file
from captrain.errors import DataError, nearest
from captrain.paths import cache_folder

BACKENDS = {  # kinds of URL that are read → the packages that bring them
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "http": "aiohttp requests",
    "https": "aiohttp requests",
    "hf": "huggingface_hub",
    "file": "fsspec",
    "memory": "fsspec",
}

_CHUNK = 8 << 20  # bytes copied at a time


def shown_url(url: str) -> str:
    """A URL as people may see it, without user, password and query; a path as it is.

    >>> shown_url("https://me:secret@host/00000.tar?signature=abc")
    'https://host/00000.tar'
    """
    if not is_remote(url):
        return url
    scheme, _, rest = url.partition("://")
    host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def path_of(source: str) -> str:
    """The path in a URL, or a path as it is, with slashes.

    >>> path_of("https://host/shards/00000.tar?signature=abc"), path_of("shards/00000.tar")
    ('shards/00000.tar', 'shards/00000.tar')
    """
    if not is_remote(source):
        return Path(source).as_posix()
    return source.partition("://")[2].partition("?")[0].partition("/")[2]


def protocol_of(url: str) -> str:
    """The kind of a URL. Raises `DataError` for one that is not read.

    >>> protocol_of("s3://bucket/00000.tar")
    's3'
    """
    protocol = url.partition("://")[0].lower()
    if protocol not in BACKENDS or "::" in url:
        kinds = ", ".join(f"{kind}://" for kind in BACKENDS)
        raise DataError(
            f"{shown_url(url)}: this kind of URL is not read; expected {kinds}.{nearest(protocol, BACKENDS)}"
        )
    return protocol


@contextmanager
def told_error(url: str) -> Iterator[None]:
    """Make one clear `DataError` of whatever a store's own package raises: each has errors of its own."""
    try:
        yield
    except DataError:
        raise
    except ImportError:
        packages = BACKENDS[protocol_of(url)]
        raise DataError(
            f"{shown_url(url)}: {protocol_of(url)}:// needs a package that is not installed; pip install {packages}"
        ) from None
    except FileNotFoundError:
        raise DataError(f"{shown_url(url)}: not found; check the address") from None
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0].replace(url, shown_url(url))[:200]
        raise DataError(
            f"{shown_url(url)}: can't be read ({type(error).__name__}: {reason}); check address and access"
        ) from None


def glob_urls(pattern: str) -> list[str]:
    """The URLs that a pattern with wildcards matches, sorted."""
    if protocol_of(pattern) in ("http", "https"):
        raise DataError(
            f"{shown_url(pattern)}: web servers can't be searched; expected numbers such as {{00000..00012}}"
        )
    with told_error(pattern):
        system, path = _system(pattern)
        found = [system.unstrip_protocol(name) for name in sorted(system.glob(path))]
    if not found:
        raise DataError(f"{shown_url(pattern)}: nothing matches; expected a pattern of .tar shards")
    return found


class RemoteFile:
    """A file behind a URL, read from front to back. Whatever goes wrong is an `OSError` of one line."""

    def __init__(self, url: str) -> None:
        with told_error(url):
            system, path = _system(url)
            self.file: BinaryIO = system.open(path, "rb")
        self.url = url
        length = getattr(self.file, "size", None)
        self.length: int | None = length if isinstance(length, int) else None
        self.at = 0

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, fewer than `size` only at the end."""
        with self._telling():
            data = self.file.read(size)
        self.at += len(data)
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a byte; where the store can't seek, what is between is read."""
        if self.file.seekable():
            with self._telling():
                self.at = self.file.seek(offset, whence)
            return self.at
        if whence or offset < self.at:
            raise OSError("this store can't go back")
        while self.at < offset and self.read(min(_CHUNK, offset - self.at)):
            pass
        return self.at

    def __enter__(self) -> RemoteFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            with told_error(self.url):
                yield
        except DataError as error:
            raise OSError(str(error)) from None


def local_copy(url: str) -> Path:
    """A URL's file in the cache folder, copied now unless it already exists.

    The copy's name is made of the URL, the length and the tag (ETag or time of change) that the store states, so a file
    that has changed is copied again. It is written in one stream, under a temporary name, then renamed.
    """
    with told_error(url):
        system, path = _system(url)
        facts: dict[str, Any] = system.info(path)
    length = facts.get("size")
    tags = [str(facts.get(name)) for name in ("ETag", "etag", "LastModified", "mtime", "updated", "created", "oid")]
    digest = hashlib.blake2b("\n".join([url, str(length), *tags]).encode(), digest_size=16).hexdigest()
    copy = cache_folder() / "shards" / f"{digest}.tar"
    if not copy.is_file():
        _make_room(copy.parent, length if isinstance(length, int) else 0, url)
        _copy(url, copy, length if isinstance(length, int) else None)
    return copy


def _system(url: str) -> tuple[Any, str]:
    import fsspec.core

    protocol_of(url)
    return cast(tuple[Any, str], fsspec.core.url_to_fs(url))


def _make_room(folder: Path, length: int, url: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise DataError(
            f"{folder}: the cache can't be made ({error.strerror}); CAPTRAIN_CACHE names another folder"
        ) from None
    if free < length:
        raise DataError(
            f"{shown_url(url)}: its copy needs {length / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB left; "
            "CAPTRAIN_CACHE names another folder"
        )


def _copy(url: str, copy: Path, length: int | None) -> None:
    with new_file(copy) as target:
        with told_error(url), RemoteFile(url) as source:
            shutil.copyfileobj(source, target, _CHUNK)
        if length is not None and target.tell() != length:
            raise DataError(f"{shown_url(url)}: {target.tell()} of {length} bytes came; try again")

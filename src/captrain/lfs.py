"""Git LFS: the note that lies in a repository's folder in place of a large file, until that is fetched."""

from __future__ import annotations

from pathlib import Path

POINTER = "is a Git LFS pointer, not the file itself; git lfs pull, in its repository, fetches it"
"""To be read after a file's name."""

_MARK = b"version https://git-lfs.github.com/spec/v1"
_SHORTEST = 16  # bytes of the mark that are enough to tell it
_LARGEST = 1024  # bytes of a pointer, by Git LFS's own rule


def is_pointer(beginning: bytes) -> bool:
    """Whether a file that begins so, with 16 bytes or more, is a pointer.

    >>> is_pointer(b"version https://git-lfs.github.com/spec/v1\\noid sha256:00"), is_pointer(b"version 2 of a caption")
    (True, False)
    """
    return len(beginning) >= _SHORTEST and beginning[: len(_MARK)] == _MARK[: len(beginning)]


def is_pointer_file(path: Path) -> bool:
    """Whether a file is a pointer; what can't be read is none."""
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return False
        with path.open("rb") as file:
            return is_pointer(file.read(len(_MARK)))
    except (OSError, ValueError):
        return False


def pointer_at(path: Path) -> Path | None:
    """The first pointer of a folder, in it and not in folders below; the path itself, if that is one; None if none is."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
    except (OSError, ValueError):
        return None
    return next((file for file in files if is_pointer_file(file)), None)

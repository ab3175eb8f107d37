"""Files that outlast a power cut: on the disk before they are relied on, and linked rather than copied."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path


def sync_tree(folder: Path) -> None:
    """Wait until all files of a folder, and the folder itself, are on the disk; links to files that are there already too."""
    for path in sorted(folder.rglob("*"), reverse=True):
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk; what is not there, or can't be waited for, is left alone.

    Windows has no such call for folders, and there a file must be open for writing.
    """
    if path.is_dir() and os.name == "nt":
        return
    try:
        handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def link_all(paths: Iterable[Path], folder: Path) -> None:
    """The same files and folders under another folder, without a byte more on the disk where it can link; else copies.

    Neither side may change a file in place afterwards: what replaces files by renaming new ones does not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        if path.is_dir():
            shutil.copytree(path, folder / path.name, copy_function=_link)
        elif path.is_file():
            _link(path, folder / path.name)


def _link(source: Path | str, target: Path | str) -> None:
    """A hard link, or a copy on file systems without them."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)

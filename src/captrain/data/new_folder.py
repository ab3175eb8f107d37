"""A folder that appears when it is complete, and never takes the place of what it is made from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TypeVar

from captrain.data.absolute_paths import OutsidePicture
from captrain.data.safe_paths import is_remote
from captrain.disk.folders import aside, fresh_folder, make_folder, replace_folder, settle, sync_tree
from captrain.disk.lock_file import no_folder
from captrain.disk.locks import FOLDER_LOCK, locked, locked_folder
from captrain.errors import DataError
from captrain.records import Sample

Result = TypeVar("Result")


@contextmanager
def new_folder(folder: Path, sources: Sequence[str], overwrite: bool) -> Iterator[Path]:
    """A folder to write into, beside `folder`, which it becomes when the work is done; it is removed when that fails.

    Raises `DataError` if `folder` is there and holds something (unless `overwrite`), or if it and a source lie one in
    the other, where they would be mixed up or the source be deleted; `BusyError` while something else writes it.
    """
    if folder.is_symlink() and not folder.is_dir():
        raise DataError(no_folder(folder))
    final = Path(os.path.realpath(folder))
    for source in sources:
        _check_apart(final, folder, source)
    make_folder(folder.parent)
    check = partial(_check_taken, final, folder, overwrite)
    with locked(final):
        settle(final, aside(final))
        check()
        with _not_in_use(final), fresh_folder(final.parent) as fresh:
            yield fresh
            sync_tree(fresh)
            check()
            with _not_in_use(final):
                replace_folder(fresh, final, aside(final))


def _not_in_use(folder: Path) -> AbstractContextManager[None]:
    """The lock of those who change what is in a folder, if it is there."""
    return locked_folder(folder, goes=True) if folder.exists() else nullcontext()


def guarded(prepare: Callable[[Sample], Result], folder: Path) -> Callable[[Sample], Result]:
    """`prepare`, but a `DataError` for an image that lies in a folder which is to be replaced: it would be deleted."""
    if not folder.exists():
        return prepare
    final = os.path.realpath(folder)

    def checked(sample: Sample) -> Result:
        file = sample.image.path if isinstance(sample.image, OutsidePicture) else sample.image
        if isinstance(file, Path) and _inside(os.path.realpath(file), final):
            raise DataError(f"{folder}: holds {file}, which is to be read; choose another folder")
        return prepare(sample)

    return checked


def _check_taken(final: Path, folder: Path, overwrite: bool) -> None:
    if not final.exists():
        return
    if not final.is_dir():
        raise DataError(f"{folder}: is a file; expected the name of a new folder")
    if all(entry.name == FOLDER_LOCK for entry in final.iterdir()):
        return
    if not overwrite:
        raise DataError(
            f"{folder}: is there already; choose another folder, or --overwrite to replace all that is in it"
        )
    for name, place in (("working", Path.cwd()), ("home", Path.home())):
        if _inside(os.path.realpath(place), str(final)):
            raise DataError(
                f"{folder}: holds the {name} folder, and --overwrite would delete it; choose another folder"
            )


def _check_apart(final: Path, folder: Path, source: str) -> None:
    """`source` may be a pattern of names; then its path leads nowhere, but says where what it means lies."""
    if is_remote(source):
        return
    origin = os.path.realpath(source)
    if _inside(origin, str(final)):
        raise DataError(f"{folder}: is or holds the source {source}; choose another folder")
    if os.path.isdir(origin) and _inside(str(final), origin):
        raise DataError(f"{folder}: lies in the source {source} and would become part of it; choose a folder outside")


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(os.path.join(folder, ""))

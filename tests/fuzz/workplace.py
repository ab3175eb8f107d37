"""Where inputs lie while they are read: a folder in memory where the system has one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

Files = dict[str, bytes]
"""A folder: names with slashes → contents."""

IN_MEMORY = "/dev/shm"


@contextmanager
def work_folder() -> Iterator[Path]:
    """A new folder, which is gone afterwards."""
    place = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="captrain-fuzz-", dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def files_in(folder: Path) -> Files:
    """What a folder holds."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


class Workplace:
    """One folder that holds one input after another; only what differs is written."""

    def __init__(self, folder: Path, changes: bool) -> None:
        """`changes`: whether reading leaves other files there than before."""
        self.folder, self.changes = folder, changes
        self.held: Files = {}

    def holding(self, files: Files) -> Path:
        """The folder, with these files and no others."""
        if self.changes:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.held = {}
        for name in self.held.keys() - files.keys():
            (self.folder / name).unlink()
        self.folder.mkdir(exist_ok=True)
        for name, content in files.items():
            if self.held.get(name) is not content:
                path = self.folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        self.held = dict(files)
        return self.folder

"""Pictures that lie in the folder of a data set and that none of its tables lists: learned by nobody, so they are told."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from captrain.data.places import IMAGE_FOLDERS, IMAGE_SUFFIXES, Root
from captrain.data.samples import key_of, keys_of
from captrain.records import Rejects, Sample

MOST = 200_000  # entries of folders that are looked at, and pictures of a table that is compared with its folder
SHOWN = 3


def note_unlisted(root: Root, splits: Iterable[Sequence[Sample]], rejects: Rejects) -> None:
    """Note how many pictures below a folder are neither samples nor rejected, and name a few.

    Nothing is noted where no picture below the folder is listed: the ids are then not the paths below it.
    """
    splits = list(splits)
    if sum(map(len, splits)) + len(rejects.lines) > MOST:
        return
    rejected = {key_of(line["id"]) for line in rejects.lines}
    listed = set(rejected)
    for samples in splits:
        listed.update(keys_of(samples).astype(np.uint64).tolist())
    names = list(_pictures(root))
    unlisted = [name for name in names if key_of(name) not in listed and key_of(_within(name)) not in rejected]
    if unlisted and len(unlisted) < len(names):
        few = ", ".join(unlisted[:SHOWN]) + (", ..." if len(unlisted) > SHOWN else "")
        count = f"{len(unlisted):,} picture{'s' * (len(unlisted) > 1)}"
        rejects.remark("unlisted", str(root.folder), str(root.folder), f"holds {count} that no table lists: {few}")


def _within(name: str) -> str:
    """A picture's name as a table may have it that does not say in which of the known folders it lies."""
    top, _, rest = name.partition("/")
    return rest if top in IMAGE_FOLDERS else name


def _pictures(root: Root) -> Iterator[str]:
    """Paths of pictures below a folder, sorted folder by folder, as far as `MOST` entries go."""
    folders, left, looked = root.folders(), [""], 0
    while left and looked < MOST:
        prefix = left.pop()
        try:
            entries = folders.entries(prefix)
        except OSError:
            continue
        looked += len(entries)
        left += [f"{prefix}{entry.name}/" for entry in reversed(entries) if entry.is_folder and not entry.fault]
        for entry in entries:
            if not entry.fault and os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                yield prefix + entry.name

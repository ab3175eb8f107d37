"""Tar shards of images and captions: `dog.jpg`, `dog.txt` (the first caption) and `dog.json` ({"captions": [...]}).

Shards are called `00000.tar`, or `train-00000.tar` and so on, and are the same to the last byte when written again.
"""

from __future__ import annotations

import io
import json
import os
import re
import tarfile

from captrain.data.writers import FormTarget, OutputSample
from captrain.data.writers.safe_names import Names, shortened_part
from captrain.disk.writing import create

LONGEST_KEY = 80  # bytes of a key that had to be shortened: ustar takes 100, and a number and a suffix are to come
CHANGED = "{images} images got other names: keys of a tar's samples are short and have no dots"

_NOTES = re.compile(r"(^|/)__+(?=[^/]*__(/|$))")  # `__meta__` and the like, which WebDataset's readers leave out


class WebDataset:
    """Writes the form, in POSIX ustar format."""

    packs_images = True
    keeps_repeats = False
    keeps_machine = False

    def __init__(self, target: FormTarget) -> None:
        self.target = target
        self.names = Names(target.losses)
        self.tars: dict[str, tarfile.TarFile] = {}  # the shard of each split that is being written
        self.counts: dict[str, int] = {}

    def put(self, item: OutputSample) -> None:
        """Add the members of one sample to its split's shard."""
        key, suffix = os.path.splitext(self.names.of(item, self._member_name, unique=_key_of))
        tar = self._shard(item.split)
        captions = json.dumps({"captions": item.captions}, ensure_ascii=False)
        _add(tar, key + suffix.lower(), item.picture.read())
        _add(tar, f"{key}.json", captions.encode())
        _add(tar, f"{key}.txt", item.captions[0].encode())

    def close(self) -> None:
        """Complete the shards."""
        for tar in self.tars.values():
            _close(tar)

    def _member_name(self, name: str) -> str:
        found = member_name(name)
        if found != name:
            self.target.losses.add(CHANGED)
        return found

    def _shard(self, split: str) -> tarfile.TarFile:
        """The tar that the next sample of a split goes to."""
        count = self.counts.get(split, 0)
        self.counts[split] = count + 1
        number, place = divmod(count, self.target.shard_size)
        if place == 0:
            if split in self.tars:
                _close(self.tars[split])
            begin = "" if split == "all" else f"{split}-"
            path = self.target.folder / f"{begin}{number:05d}.tar"
            self.tars[split] = tarfile.TarFile(None, "w", create(path), format=tarfile.USTAR_FORMAT, encoding="utf-8")
        return self.tars[split]


def member_name(name: str) -> str:
    """The name of an image in a tar: no dot but that of its suffix in its last part, short enough for ustar.

    >>> member_name("a.b/dog.v1.jpg"), member_name("__notes__/dog.png")
    ('a.b/dog_v1.jpg', 'notes__/dog.png')
    """
    key, suffix = os.path.splitext(name)
    folder, last = os.path.split(key)
    key = _NOTES.sub(r"\1", os.path.join(folder, last.replace(".", "_")))
    try:
        tarfile.TarInfo(f"{key}-00000.jpeg").tobuf(tarfile.USTAR_FORMAT, "utf-8")
    except ValueError:
        key = shortened_part(key.replace("/", "_").replace(".", "_"), LONGEST_KEY)
    return key + suffix


def _key_of(member: str) -> str:
    return os.path.splitext(member)[0]


def _close(tar: tarfile.TarFile) -> None:
    """Complete a tar, and its file, which a `TarFile` that was given one leaves open."""
    tar.close()
    assert tar.fileobj is not None
    tar.fileobj.close()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # its time, owner and mode are the same for all
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))

"""Karpathy's splits of COCO, Flickr8k and Flickr30k, `dataset_coco.json` say (Karpathy, Fei-Fei 2015).

{"images": [{"filepath": "val2014", "filename": "7.jpg", "split": "restval", "sentences": [{"raw": "a dog"}]}]}

The path of such a file, or a folder with one. Images are at filepath/filename or filename, below the file's folder or
`image_root`, there itself or in `images/` or in a folder that the official archives unpack to.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from captrain.data.gathered import Gathered
from captrain.data.options import BY_LOOKING, ReadOptions
from captrain.data.places import existing
from captrain.data.readers import SPLIT_NAMES
from captrain.data.readers.json_objects import (
    caption_at,
    first_found,
    has_keys,
    image_root,
    json_files,
    load_object,
    name_at,
    objects_at,
    text_at,
)
from captrain.data.readers.nothing import nothing_to_use
from captrain.data.readers.tables import Listed, refuse_links
from captrain.errors import DataError, nearest
from captrain.records import Rejects, Sample

ARCHIVE_FOLDERS = ("Flicker8k_Dataset", "flickr30k-images")


def recognises(source: str, options: ReadOptions = BY_LOOKING) -> bool:
    """Whether this is such a file, by its first and last kilobytes, or a folder with some."""
    path = Path(source)
    return bool(json_files(path, _is_karpathy)) if path.is_dir() else _is_karpathy(path)


def tables(folder: Path, options: ReadOptions = BY_LOOKING) -> list[Listed]:
    """The files of a folder; each has all splits."""
    return [Listed(file, whole=True, by_name=True) for file in json_files(folder, _is_karpathy)]


def read(
    source: str, rejects: Rejects, options: ReadOptions = BY_LOOKING, *, captioned: bool = True
) -> dict[str, Sequence[Sample]]:
    """All images by split ("restval" is trained on), in the file's order; ids are the paths they are found under.

    Rejected are images that are missing or without caption. Raises `DataError` for an entry of another form, and if
    nothing is left.
    """
    path = existing(Path(source))
    file = path if path.is_file() else _only_file(path)
    refuse_links(path, [file], options.follow_links)
    gathered = Gathered(image_root(file.parent, options), file)
    for number, image in enumerate(objects_at(load_object(file), "images", str(file)), start=1):
        where = f"{file}: image {number}"
        captions = [caption_at(sentence, "raw", where) for sentence in objects_at(image, "sentences", where)]
        name = first_found(gathered.root, _names(image, where), where)
        gathered.add(name, captions, number, rejects, _split(image, where))
    if "all" in gathered.names and len(gathered.names) > 1:
        raise DataError(f"{file}: some images name a split and some don't; expected all or none")
    splits = gathered.samples(rejects, captioned=captioned)
    if not splits:
        raise nothing_to_use(path, rejects, "expected images with captions", [gathered.root], none="it lists no images")
    return splits


def _is_karpathy(path: Path) -> bool:
    return has_keys(path, "images", "filename", "sentences", "raw")


def _only_file(folder: Path) -> Path:
    files = json_files(folder, _is_karpathy)
    if len(files) != 1:
        found = " and ".join(file.name for file in files) or "no such file"
        raise DataError(
            f"{folder}/: {found}; expected one file such as dataset_coco.json, or the path of the one to use"
        )
    return files[0]


def _names(image: dict[str, Any], where: str) -> tuple[str, ...]:
    name = name_at(image, "filename", where)
    folder = f"{name_at(image, 'filepath', where)}/" if image.get("filepath") else ""
    return tuple(dict.fromkeys((folder + name, name, *(f"{archive}/{name}" for archive in ARCHIVE_FOLDERS))))


def _split(image: dict[str, Any], where: str) -> str:
    if image.get("split") is None:
        return "all"
    split = text_at(image, "split", where).lower()
    if split not in SPLIT_NAMES:
        hint = nearest(split[:80], SPLIT_NAMES)
        raise DataError(f"{where}: unknown split {split[:80]!r}; expected train, restval, val or test.{hint}")
    return SPLIT_NAMES[split]

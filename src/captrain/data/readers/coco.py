"""COCO captions: {"images": [{"id": 7, "file_name": "dog.jpg"}], "annotations": [{"image_id": 7, "caption": "a dog"}]}.

The path of such a file; or a folder with one, or with one per split, at its top or in `annotations/`
(`annotations/captions_train2017.json`). File names are relative to the folder (the one above `annotations/`) or to
`image_root`: to itself, to a folder in it that is called as the file is (`train2017/`), or to either below `images/`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from captrain.data.caption_buffers import GatheredCaptions
from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.data.readers.columns import encodable
from captrain.data.readers.json_objects import (
    caption_at,
    first_found,
    has_keys,
    image_root,
    json_files,
    load_object,
    name_at,
    objects_at,
    wrong,
)
from captrain.data.readers.remarks import nothing_to_use
from captrain.data.readers.tables import ListedTable, note_marked, refuse_links
from captrain.data.safe_paths import Root, existing
from captrain.data.splits import SPLIT_NAMES
from captrain.errors import DataError
from captrain.records import Rejects, Sample
from captrain.tabular.cells import is_marked


def recognises(source: str, options: ReadOptions = BY_LOOKING) -> bool:
    """Whether this is a COCO captions file, or a folder with some: by the first and last kilobytes of .json files."""
    path = Path(source)
    return bool(_caption_files(path)) if path.is_dir() else _is_coco(path)


def tables(folder: Path, options: ReadOptions = BY_LOOKING) -> list[ListedTable]:
    """The captions files of a folder and of `annotations/` in it."""
    return [ListedTable(file, split := _split_of(file), not split, by_name=True) for file in _caption_files(folder)]


def read(
    source: str, rejects: Rejects, options: ReadOptions = BY_LOOKING, *, captioned: bool = True
) -> dict[str, Sequence[Sample]]:
    """All images of the files by split, in their order; ids are the paths under which the images are found.

    Rejected are images that are missing, without caption, or whose id is taken, and captions of unknown images (one
    line an unknown id). Captions that are marked as rejected or canned (VizWiz) are left out, and counted. Raises
    `DataError` for an entry of another form, and if nothing is left.
    """
    path = existing(Path(source))
    splits: dict[str, Sequence[Sample]] = {}
    roots: list[Root] = []
    files = {"all": path} if path.is_file() else _files_by_split(path)
    refuse_links(path, files.values(), options.follow_links)
    for split, file in files.items():
        gathered = GatheredCaptions(image_root(_folder_of(file), options), file)
        roots.append(gathered.root)
        _gather(gathered, split, rejects)
        splits.update(gathered.samples(rejects, captioned=captioned))
    if not splits:
        raise nothing_to_use(path, rejects, "expected images with captions", roots, none="it lists no images")
    return splits


def _is_coco(path: Path) -> bool:
    return has_keys(path, "image_id", "caption") and (has_keys(path, "images") or has_keys(path, "file_name"))


def _caption_files(folder: Path) -> list[Path]:
    """The captions files of a folder. One with the ids of images alone (LAVIS's coco_karpathy_val_gt.json) is no data set."""
    files = [*json_files(folder, _is_coco), *json_files(folder / "annotations", _is_coco)]
    return [file for file in files if has_keys(file, "file_name")]


def _split_of(file: Path) -> str:
    """The split in a file's name, "" if there is none."""
    words = re.findall("[a-z]+", file.stem.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), "")


def _files_by_split(folder: Path) -> dict[str, Path]:
    """The captions files of a folder by the split in their names; "all" for one whose name has none."""
    named: dict[str, Path] = {}
    files = _caption_files(folder)
    for file in files:
        split = _split_of(file) or "all"
        if other := named.get(split) or named.get("all") or (split == "all" and next(iter(named.values()), None)):
            both = " and ".join(path.relative_to(folder).as_posix() for path in (other, file))
            raise DataError(f"{folder}/: {both} can't be told apart as splits; give the path of the one to use")
        named[split] = file
    if not named:
        raise DataError(f"{folder}/: no COCO captions file; expected one such as annotations/captions_train2017.json")
    return named


def _folder_of(file: Path) -> Path:
    """The folder of the data set that a captions file belongs to."""
    return file.absolute().parent.parent if file.absolute().parent.name == "annotations" else file.parent


def _gather(gathered: GatheredCaptions, split: str, rejects: Rejects) -> None:
    file = gathered.file
    content = load_object(file)
    images = objects_at(content, "images", str(file))
    numbers = _numbers_by_id(images, file, rejects)
    captions = _captions_by_id(objects_at(content, "annotations", str(file)), numbers, file, rejects)
    subfolder = file.stem.removeprefix("captions_")
    for image_id, number in numbers.items():
        where = f"{file}: image {number}"
        name = name_at(images[number - 1], "file_name", where)
        found = first_found(gathered.root, (name, f"{subfolder}/{name}"), where)
        gathered.add(found, captions.get(image_id, ()), number, rejects, split)


def _numbers_by_id(images: list[dict[str, Any]], file: Path, rejects: Rejects) -> dict[str, int]:
    """The place of each image in the file, from 1, by its id."""
    numbers: dict[str, int] = {}
    for number, image in enumerate(images, start=1):
        where = f"{file}: image {number}"
        first = numbers.setdefault(_id_at(image, "id", where), number)
        if first != number:
            rejects.add(name_at(image, "file_name", where), where, f"has the id of image {first}")
    return numbers


def _captions_by_id(
    annotations: list[dict[str, Any]], known: dict[str, int], file: Path, rejects: Rejects
) -> dict[str, list[str]]:
    captions: dict[str, list[str]] = {}
    note_marked(file, sum(map(is_marked, annotations)), rejects)
    for number, annotation in enumerate(annotations, start=1):
        if is_marked(annotation):
            continue
        where = f"{file}: annotation {number}"
        image_id = _id_at(annotation, "image_id", where)
        if image_id not in known and image_id not in captions:
            rejects.add(image_id, where, "is about an image that is not in 'images'")
        captions.setdefault(image_id, []).append(caption_at(annotation, "caption", where))
    return captions


def _id_at(entry: dict[str, Any], key: str, where: str) -> str:
    """An id as text: some tools write the same id as a number here and as a string there."""
    value = entry.get(key)
    if not isinstance(value, int | str) or isinstance(value, bool):
        raise wrong(value, key, where, "a number or a string")
    return encodable(str(value))

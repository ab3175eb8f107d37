"""COCO captions: {"images": [{"id": 7, "file_name": "dog.jpg"}], "annotations": [{"image_id": 7, "caption": "a dog"}]}.

The path of such a file; or a folder with one, or with one a split, at its top or in `annotations/`
(`annotations/captions_train2017.json`). File names are relative to the folder (the one above `annotations/`) or to
`image_root`: to itself, to a folder in it that is called as the file is (`train2017/`), or to either below `images/`.

Below are also the few functions that all readers of one large JSON object share.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from captrain.data.gathered import Gathered
from captrain.data.places import Root, existing, is_hidden
from captrain.data.readers import SPLIT_NAMES
from captrain.data.readers.options import BY_LOOKING, ReadOptions
from captrain.errors import DataError
from captrain.records import Rejects, Sample

LARGEST_FILE = 4 << 30  # bytes; such a file is read into memory whole, at several times its size
LONGEST_NAME = 4096  # bytes of a path; no system takes longer ones
MOST_FILES = 20  # .json files in a folder of which one may be a data set; more are something else, one an image say

_BOM = b"\xef\xbb\xbf"
_GLANCE = 64 << 10  # bytes


def recognises(source: str) -> bool:
    """Whether this is a COCO captions file, or a folder with some: by the first and last kilobytes of .json files."""
    path = Path(source)
    return bool(_caption_files(path)) if path.is_dir() else _is_coco(path)


def read(
    source: str, rejects: Rejects, options: ReadOptions = BY_LOOKING, *, captioned: bool = True
) -> dict[str, Sequence[Sample]]:
    """All images of the files by split, in their order; ids are the paths under which the images are found.

    Rejected are images that are missing, without caption, or whose id another has, and captions of unknown images (one
    line an unknown id). Raises `DataError` for an entry of another form, and if nothing is left.
    """
    path = existing(Path(source))
    splits: dict[str, Sequence[Sample]] = {}
    for split, file in ({"all": path} if path.is_file() else _files_by_split(path)).items():
        gathered = Gathered(image_root(_folder_of(file), options), file)
        _gather(gathered, split, rejects)
        splits.update(gathered.samples(rejects, captioned=captioned))
    if not splits:
        raise nothing_to_use(path, rejects)
    return splits


def _is_coco(path: Path) -> bool:
    return has_keys(path, "image_id", "caption") and (has_keys(path, "images") or has_keys(path, "annotations"))


def _caption_files(folder: Path) -> list[Path]:
    return [*json_files(folder, _is_coco), *json_files(folder / "annotations", _is_coco)]


def _files_by_split(folder: Path) -> dict[str, Path]:
    """The captions files of a folder by the split in their names; "all" for one whose name has none."""
    named: dict[str, Path] = {}
    files = _caption_files(folder)
    for file in files:
        words = re.findall("[a-z]+", file.stem.lower())
        split = next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), "all")
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


def _gather(gathered: Gathered, split: str, rejects: Rejects) -> None:
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
    for number, annotation in enumerate(annotations, start=1):
        where = f"{file}: annotation {number}"
        image_id = _id_at(annotation, "image_id", where)
        if image_id not in known and image_id not in captions:
            rejects.add(image_id, where, "is about an image that is not in 'images'")
        captions.setdefault(image_id, []).append(text_at(annotation, "caption", where))
    return captions


def _id_at(entry: dict[str, Any], key: str, where: str) -> str:
    """An id as text: some tools write the same id as a number here and as a string there."""
    value = entry.get(key)
    if not isinstance(value, int | str) or isinstance(value, bool):
        raise _wrong(value, key, where, "a number or a string")
    return encodable(str(value))


def has_keys(path: Path, *keys: str) -> bool:
    """Whether a .json file looks like an object with such keys somewhere in it, by its ends."""
    ends = ends_of(path)
    return ends.startswith(b"{") and all(re.search(rb'"%s"\s*:' % key.encode(), ends) for key in keys)


def ends_of(path: Path) -> bytes:
    """The first and last kilobytes of a .json file, without what may stand before JSON; b"" if it can't be read."""
    try:
        if path.suffix.lower() != ".json" or not path.is_file():
            return b""
        with path.open("rb") as file:
            ends = file.read(_GLANCE)
            if (size := path.stat().st_size) > len(ends):
                file.seek(max(len(ends), size - _GLANCE))
                ends += file.read(_GLANCE)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return b""
    return ends.removeprefix(_BOM).lstrip()


def json_files(folder: Path, are: Callable[[Path], bool]) -> list[Path]:
    """The .json files right in a folder that are of a form, sorted; none if it has too many, or can't be listed."""
    try:
        files = list(islice((file for file in folder.glob("*.json") if not is_hidden(file.name)), MOST_FILES + 1))
    except OSError:
        return []
    return [] if len(files) > MOST_FILES else [file for file in sorted(files) if are(file)]


def image_root(folder: Path, options: ReadOptions) -> Root:
    """The folder that image names are relative to: `options.image_root`, else `folder`."""
    if options.image_root is None:
        return Root(folder)
    if not existing(options.image_root).is_dir():
        raise DataError(f"image_root {options.image_root}: not a folder; expected the folder that holds the images")
    return Root(options.image_root)


def first_found(root: Root, names: Sequence[str], where: str) -> str:
    """The first of several names of an image that leads to a file; the first of all if none does."""
    return next((name for name in names if root.find(name, where)), names[0])


def load_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds. Raises `DataError` if it holds something else or is over `LARGEST_FILE`."""
    try:
        if (size := path.stat().st_size) > LARGEST_FILE:
            raise DataError(f"{path}: {size} bytes, over {LARGEST_FILE}; split the file, or make it a .jsonl table")
        value = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None
    except RecursionError:
        raise DataError(f"{path}: JSON that is nested too deeply; expected an object of images and captions") from None
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: found a JSON {type(value).__name__}, expected an object")
    return value


def objects_at(content: dict[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    """The list of objects under a key. Raises `DataError` for anything else, naming the entry."""
    value = content.get(key)
    if not isinstance(value, list):
        raise _wrong(value, key, where, "a list of objects")
    for number, entry in enumerate(value, start=1):
        if not isinstance(entry, dict):
            raise DataError(f"{where}: entry {number} of '{key}' is a {type(entry).__name__}; expected an object")
    return value


def text_at(entry: dict[str, Any], key: str, where: str) -> str:
    """The string under a key. Raises `DataError` for anything else."""
    value = entry.get(key)
    if not isinstance(value, str):
        raise _wrong(value, key, where, "a string")
    return value


def name_at(entry: dict[str, Any], key: str, where: str) -> str:
    """The path under a key. Raises `DataError` for what is none."""
    name = encodable(text_at(entry, key, where))
    if not name.strip() or len(name.encode()) > LONGEST_NAME or len(name.splitlines()) > 1:
        raise DataError(f"{where}: '{key}' is {name[:80]!r}; expected the path of an image")
    return name


def encodable(text: str) -> str:
    """Half a surrogate pair can be written in JSON but not in UTF-8, so it would break whatever is written later."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def nothing_to_use(path: Path, rejects: Rejects) -> DataError:
    """The error for a file of which nothing is left."""
    found = rejects.summary() if rejects else "it lists no images"
    return DataError(
        f"{path}: nothing to use ({found}); expected images with captions; image_root says where images are"
    )


def _wrong(value: object, key: str, where: str, expected: str) -> DataError:
    found = f"no '{key}'" if value is None else f"a {type(value).__name__} in '{key}'"
    return DataError(f"{where}: found {found}; expected {expected}")

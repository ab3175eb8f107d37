"""Data sets of sd-scripts (kohya-ss): folders called `10_dogs`, or a `meta_cap.json` beside the images.

A folder at the top called <repeats>_<name> (1 to 999, without leading zeros, so that years and padded numbers stay
names) is shown that many times an epoch; captions are files beside its images; other folders may stand beside it.

A metadata file is {"dogs/1": {"caption": "a dog", "tags": "dog, grass", "train_resolution": [512, 512]}}, as
merge_captions_to_metadata.py, merge_dd_tags_to_metadata.py and prepare_buckets_latents.py write it; or such an object
under "images". Its keys are paths, often without extension or of another machine: they are found by as many of their last
parts as lead to an image.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from captrain.data.absolute_paths import is_absolute
from captrain.data.caption_buffers import GatheredCaptions
from captrain.data.picture_files import is_unicode
from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.data.readers import sidecar
from captrain.data.readers.columns import encodable
from captrain.data.readers.json_entries import ends_as_picture
from captrain.data.readers.json_objects import LONGEST_NAME, ends_of, image_root, load_object
from captrain.data.readers.remarks import nothing_to_use
from captrain.data.readers.tables import refuse_links
from captrain.data.safe_paths import IMAGE_SUFFIXES, Root, existing
from captrain.data.samples import LazySamples, keys_of
from captrain.disk.walking import FolderEntry, Folders
from captrain.errors import DataError, nearest
from captrain.records import Rejects, Sample

METADATA_NAMES = ("meta_lat.json", "meta_clean.json", "meta_cap_dd.json", "meta_cap.json")  # the last step's first
COLUMNS = ("caption", "tags", "caption+tags")
TABLE_SUFFIXES = frozenset(
    {".jsonl", ".csv", ".tsv", ".parquet", ".tar"}
)  # with such a file, folders' names mean nothing
REJECTED = "rejected.jsonl"  # what `data convert` lists beside its result is no table
MOST_ENTRIES = 10_000  # looked at before a folder counts as one without images

_REPEATS = re.compile(r"([1-9][0-9]{0,2})_.")
_ENTRY = rb'\{\s*"(?:[^"\\]|\\.)*"\s*:\s*\{\s*"(caption|tags|train_resolution|image_size)"\s*:'
_METADATA = re.compile(_ENTRY)
_WITHIN_IMAGES = re.compile(rb'\{[^{}\[\]]*"images"\s*:\s*' + _ENTRY)  # behind a version and the like


class Repeated(LazySamples):
    """Samples of a folder, shown as often as their top folders' names say."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def keys(self) -> np.ndarray:
        return keys_of(self.samples)

    def sample_at(self, index: int) -> Sample:
        sample = self.samples[index]
        return replace(sample, repeats=repeats_of(sample.id))


def repeats_of(image: str) -> int:
    """How often an epoch shows an image, by the name of its top folder.

    >>> [repeats_of(image) for image in ("10_dogs/deep/1.jpg", "dogs/1.jpg", "2023_july/1.jpg", "10_dogs.jpg")]
    [10, 1, 1, 1]
    """
    top, slash, _ = image.partition("/")
    match = _REPEATS.match(top)
    return int(match[1]) if match and slash else 1


def recognises(source: str, options: ReadOptions = BY_LOOKING) -> bool:
    """Whether this is a metadata file, a folder with one, or one with images in folders called <repeats>_<name>."""
    path = Path(source)
    if not path.is_dir():
        return _is_metadata(path)
    return any(_is_metadata(path / name) for name in METADATA_NAMES) or _has_repeats(
        Root(path, follow_links=options.follow_links)
    )


def read(
    source: str, rejects: Rejects, options: ReadOptions = BY_LOOKING, *, captioned: bool = True
) -> dict[str, Sequence[Sample]]:
    """All images of the folders, or all that the metadata names; ids are their paths.

    `options.caption_column` chooses of metadata "caption", "tags" or "caption+tags", joined by ", "; default: the
    caption, where there is none the tags. Rejected are images without caption and names that lead to no image, or to
    images in several folders. Raises `DataError` for an entry of another form, and if nothing is left.
    """
    path = existing(Path(source))
    file = path if path.is_file() else next((path / name for name in METADATA_NAMES if (path / name).is_file()), None)
    if file is None:
        splits = sidecar.read(source, rejects, options, captioned=captioned)
        return {split: Repeated(samples) for split, samples in splits.items()}
    refuse_links(path, [file], options.follow_links)
    gathered = GatheredCaptions(image_root(file.parent, options), file)
    gather_metadata(gathered, options.caption_column, rejects)
    found = gathered.samples(rejects, captioned=captioned)
    if not found:
        raise nothing_to_use(path, rejects, "expected images with captions", [gathered.root], none="it lists no images")
    return found


def _is_metadata(path: Path) -> bool:
    ends = ends_of(path)
    found = _METADATA.match(ends) or _WITHIN_IMAGES.match(ends)
    return found is not None or (path.name in METADATA_NAMES and ends.startswith(b"{"))


def _has_repeats(root: Root) -> bool:
    """Whether the folder has no table and a folder called <repeats>_<name> that holds images, or one deeper does."""
    try:
        entries = root.folders().entries("")
    except OSError:
        return False
    if any(os.path.splitext(entry.name)[1].lower() in TABLE_SUFFIXES for entry in entries if entry.name != REJECTED):
        return False
    tops = [entry.name for entry in entries if entry.is_folder and not entry.fault and _REPEATS.match(entry.name)]
    return any(holds_image(root, f"{top}/") for top in tops)


def holds_image(root: Root, top: str = "") -> bool:
    """Whether there is an image in one of a data set's folders or below it, as far as `MOST_ENTRIES` entries tell."""
    folders, left, looked = root.folders(), [top], 0
    while left and looked < MOST_ENTRIES:
        prefix = left.pop()
        for entry in _entries_or_none(folders, prefix):
            looked += 1
            if entry.is_folder:
                left += [f"{prefix}{entry.name}/"] * (not entry.fault)
            elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                return True
    return False


def gather_metadata(gathered: GatheredCaptions, column: str, rejects: Rejects, repeats: int | None = None) -> None:
    """Collect what a metadata file says of the images below a folder; `repeats` of each, or None for their folders'."""
    if column and column not in COLUMNS:
        expected = f"expected {', '.join(COLUMNS)}.{nearest(column, COLUMNS)}"
        raise DataError(f"{gathered.file}: caption_column {column[:80]!r} is not in sd-scripts' metadata; {expected}")
    images = _Images(gathered.root)
    for number, (key, entry) in enumerate(_entries(gathered.file), start=1):
        where = f"{gathered.file}: entry {number} ({encodable(key)[:80]!r})"
        captions = _captions(entry, column, where)
        names = images.named(encodable(key))
        if len({os.path.dirname(name) for name in names}) > 1:
            rejects.add(encodable(key)[:LONGEST_NAME], where, f"may be any of {len(names)} images, '{names[0]}' say")
            continue
        if not names and not gathered.root.confined and is_absolute(key) and ends_as_picture(key):
            names = [encodable(key)]  # of this machine, it may be
        if not names:
            rejects.add(encodable(key)[:LONGEST_NAME], where, "names an image that is not there")
        for name in names:
            gathered.add(name, captions, number, rejects, repeats=repeats_of(name) if repeats is None else repeats)


def _entries(file: Path) -> Iterable[tuple[str, Any]]:
    """What a metadata file says, image by image."""
    content = load_object(file)
    images = content.get("images")
    if isinstance(images, dict) and not any(key in images for key in ("caption", "tags", "train_resolution")):
        return images.items()
    return content.items()


def _captions(entry: Any, column: str, where: str) -> list[str]:
    """What an entry says of its image.

    >>> entry = {"caption": ["a dog", "it runs"], "tags": ["dog", "grass"]}
    >>> [_captions(entry, column, "meta_cap.json") for column in ("tags", "caption+tags")]
    [['dog, grass'], ['a dog, dog, grass', 'it runs, dog, grass']]
    """
    entry = {"caption": entry} if isinstance(entry, list) else entry
    if not isinstance(entry, dict):
        raise DataError(f"{where}: found a {type(entry).__name__}; expected an object with 'caption' or 'tags'")
    captions = _texts(entry, "caption", where)
    tags = ", ".join(_texts(entry, "tags", where))
    if column == "caption+tags":
        return [", ".join(filter(None, (caption, tags))) for caption in captions or [""]]
    if column == "tags":
        return [tags]
    return captions if captions or column == "caption" else [tags]


def _texts(entry: dict[str, Any], key: str, where: str) -> list[str]:
    value = entry.get(key)
    texts = value if isinstance(value, list) else [] if value is None else [value]
    for text in texts:
        if not isinstance(text, str):
            raise DataError(
                f"{where}: found a {type(text).__name__} in '{key}'; expected a string or a list of strings"
            )
    return [text.strip() for text in texts if text.strip()]


class _Images:
    """The images below a folder by the names that metadata may call them: paths, with or without suffix, and parts."""

    def __init__(self, root: Root) -> None:
        self.by_path: dict[str, list[str]] = {}
        self.by_base: dict[str, list[str]] = {}
        for path in _image_paths(root):
            for name in _names(path):
                self.by_path.setdefault(name, []).append(path)
                self.by_base.setdefault(name.rsplit("/", 1)[-1], []).append(path)

    def named(self, key: str) -> list[str]:
        """The images that a key may mean: several if they differ in their suffixes only, or in their folders only."""
        name = written = unicodedata.normalize("NFC", key[:LONGEST_NAME].replace("\\", "/")).lstrip("/")
        if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
            name = _names(name)[0]
        while name not in self.by_path and "/" in name:
            name = name.split("/", 1)[1]
        found = self.by_path.get(name) or self.by_base.get(name, [])
        exact = [path for path in found if written.endswith(unicodedata.normalize("NFC", path))]
        return exact or [path for path in found if _names(path)[0] == name] or found


def _names(path: str) -> tuple[str, str]:
    """What metadata may call an image: with its ending, in lower case, and without."""
    stem, suffix = os.path.splitext(unicodedata.normalize("NFC", path))
    return stem + suffix.lower(), stem


def _image_paths(root: Root) -> Iterator[str]:
    """Paths of images, sorted, links that leave the folder too: the error is told when they are added."""
    folders, left = root.folders(), [""]
    while left:
        path = left.pop()
        if path and not path.endswith("/"):
            yield path
            continue
        for entry in reversed(_entries_of(folders, path)):
            if entry.is_folder:
                left += [f"{path}{entry.name}/"] * (not entry.fault)
            elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES and is_unicode(entry.name):
                left.append(path + entry.name)


def _entries_or_none(folders: Folders, prefix: str) -> list[FolderEntry]:
    try:
        return folders.entries(prefix)
    except OSError:
        return []


def _entries_of(folders: Folders, prefix: str) -> list[FolderEntry]:
    try:
        return folders.entries(prefix)
    except OSError as error:
        raise DataError(f"{folders.folder}/{prefix}"[:200] + f": can't be listed ({error.strerror})") from None

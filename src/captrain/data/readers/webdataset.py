"""Tar shards of images and captions, as WebDataset and img2dataset write them: `000.jpg`, `000.txt`, `000.json` and so on.

The source is a .tar, a folder of them, a pattern (`cc12m-{00000..00012}.tar`, `shards/*.tar`), a list with commas, or URLs of
these (s3://, gs://, https:// ...). Headers are read once; then any sample is a seek away. A remote shard is copied whole, once,
into captrain's cache folder (`CAPTRAIN_CACHE`); `captrain.data.shards.stream` reads shards in order and stores nothing.

Captions are, where options name no member, in `txt`, `caption`, `captions` or `text`, else in the field `captions`, `caption` or
`text` of `json`. As with texts beside images each line of a text is a caption; `--caption-lines whole` makes the text one.
Where the names of all shards say a split (`train/00000.tar`, `cc12m-val-0000.tar`), those are the splits.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from captrain.data.caption_buffers import FlatTexts
from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.data.safe_paths import IMAGE_SUFFIXES, is_hidden, is_remote
from captrain.data.samples import LazySamples, key_of
from captrain.data.shards.members import (
    LARGEST_TEXT,
    MOST_PARTS,
    Keys,
    MemberGroup,
    SampleMember,
    divided,
    groups,
    split_name,
    stem_key,
)
from captrain.data.shards.remote import local_copy, path_of
from captrain.data.shards.sources import COMPRESSED, TarShard, expand, reject, split_list
from captrain.data.shards.tars import Member, StoredMember
from captrain.disk.reading import open_file
from captrain.errors import DataError, nearest
from captrain.records import Rejects, Sample

NO_CAPTION = 255  # in place of a rule's number

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".txt")  # that may be about pictures in a tar beside them

_BUFFER = 1 << 16  # bytes read at once: a header and, often, the caption that follows it


class TarIndex:
    """Where the images and captions of shards are: 57 bytes a sample, and its name."""

    def __init__(self, keys: Keys) -> None:
        self.rules = keys
        self.shards: list[TarShard] = []
        self.paths: list[Path] = []
        self.names = FlatTexts()
        self.places = array("I")  # of a sample: its shard
        self.images, self.image_sizes = array("Q"), array("Q")
        self.captions, self.caption_sizes = array("Q"), array("Q")
        self.fields = array("B")  # of a sample: which of the rules finds its captions
        self.keys = array("Q")

    def add(self, image: SampleMember, caption: SampleMember | None, field: int) -> None:
        """One sample of the shard that was begun last."""
        self.places.append(len(self.shards) - 1)
        self.names.append(image.name)
        self.images.append(image.offset)
        self.image_sizes.append(image.size)
        self.captions.append(caption.offset if caption else 0)
        self.caption_sizes.append(caption.size if caption else 0)
        self.fields.append(field)
        self.keys.append(key_of(self.shards[-1].prefix + image.name))

    def sample(self, number: int) -> Sample:
        """A sample; its caption is read now, its image when it is asked for."""
        place, name = self.places[number], self.names[number]
        shard, path = self.shards[place], self.paths[place]
        image = StoredMember(path, self.images[number], self.image_sizes[number], f"{shard.label}/{name}")
        return Sample(shard.prefix + name, image, self._texts(number, path, image.label), f"{shard.name}:{name}")

    def _texts(self, number: int, path: Path, label: str) -> tuple[str, ...]:
        if self.fields[number] == NO_CAPTION:
            return ()
        try:
            data = StoredMember(path, self.captions[number], self.caption_sizes[number], label).read()
            return self.rules.texts(data, self.fields[number])
        except (OSError, ValueError) as error:
            raise DataError(f"{label}: its caption {error}; it was readable when the shard was indexed") from None


class TarSamples(LazySamples):
    """Samples of an index by their numbers."""

    def __init__(self, entries: TarIndex, numbers: np.ndarray) -> None:
        self.entries, self.numbers = entries, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def keys(self) -> np.ndarray:
        return np.array(self.entries.keys, dtype=np.uint64)[self.numbers]

    def sample_at(self, index: int) -> Sample:
        return self.entries.sample(int(self.numbers[index]))


def recognises(source: str, options: ReadOptions = BY_LOOKING) -> bool:
    """Whether this names .tar files: a folder that has them, and no pictures or tables of its own, counts."""
    if os.path.isdir(source):
        return _is_folder_of_shards(source)
    if source.lower().startswith("pipe:"):
        return True
    parts = split_list(source)
    return bool(parts) and all(_is_tar_name(part) for part in parts)


def _is_tar_name(part: str) -> bool:
    return (
        path_of(part).lower().endswith((".tar", ".tgz", ".tbz2", ".txz", *(f".tar{suffix}" for suffix in COMPRESSED)))
    )


def _is_folder_of_shards(folder: str) -> bool:
    """By the names in it and in its folders, no deeper: a cheap look."""
    names = list(_names(folder))
    suffixes = {os.path.splitext(name)[1].lower() for name in names}
    return ".tar" in suffixes and not suffixes & IMAGE_SUFFIXES and "metadata.jsonl" not in names


def _names(folder: str, deeper: bool = True) -> Iterator[str]:
    try:
        entries = [entry for entry in os.scandir(folder) if not is_hidden(entry.name)]
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                yield entry.name
            elif deeper:
                yield from _names(entry.path, deeper=False)
    except OSError:
        return


def read(
    source: str, rejects: Rejects, options: ReadOptions = BY_LOOKING, *, captioned: bool = True
) -> dict[str, Sequence[Sample]]:
    """All samples of all shards, in the order of the shards and of the images in each.

    Rejected are samples without image or caption, what in a tar is no plain file or leaves it, names that come twice, and
    the rest of a shard from where it is broken. Raises `DataError` if a shard is not there or nothing is left.
    """
    shards = expand(source, rejects, follow_links=options.follow_links)
    indexer = _Indexer(Keys.of(options), rejects, captioned)
    for shard in shards:
        indexer.add(shard, local_copy(shard.url) if is_remote(shard.url) else Path(shard.url))
    if not indexer.index.keys:
        raise DataError(_nothing_left(source, shards, indexer, rejects))
    return _by_split(indexer.index, rejects)


class _Indexer:
    """Reads the headers and captions of shards, once."""

    def __init__(self, keys: Keys, rejects: Rejects, captioned: bool) -> None:
        self.keys, self.rejects, self.captioned = keys, rejects, captioned
        self.index = TarIndex(keys)
        self.suffixes: dict[str, None] = {}  # that were met, for errors

    def add(self, shard: TarShard, path: Path) -> None:
        """Index a shard. Members of a sample that do not follow one another (plain `tar` packs them so) are found too."""
        self.index.shards.append(shard)
        self.index.paths.append(path)
        waiting: dict[str, MemberGroup] = {}  # samples that still lack a member
        try:
            with open_file(path, _BUFFER) as file:
                for found in groups(file, self.keys, os.fstat(file.fileno()).st_size):
                    if isinstance(found, Member):
                        self._reject(found.name, found.problem)
                    else:
                        self._take(found, waiting, file)
                for group in self._together(list(waiting.values())):
                    self._settle(self._filled(group, file))
        except OSError as error:
            raise DataError(f"{shard.label}: can't be read ({error.strerror})") from None

    def _take(self, group: MemberGroup, waiting: dict[str, MemberGroup], file: BinaryIO) -> None:
        """Add a sample that is complete; let another wait for the rest of its members, and divide what is several with them."""
        self._note(group)
        pieces = [group]
        if earlier := waiting.pop(stem_key(group), None):
            self._merge(self._filled(earlier, file), group)
            pieces = divided(earlier, self.keys)
        for piece in pieces:
            self._add_or_wait(piece, waiting)

    def _add_or_wait(self, group: MemberGroup, waiting: dict[str, MemberGroup]) -> None:
        try:
            image = self.keys.image(group.parts)
            caption, field, _ = self.keys.caption(group.parts, image)
        except ValueError:
            group.parts = [part._replace(data=None) for part in group.parts]  # any number of samples may wait
            self._merge(waiting.setdefault(stem_key(group), MemberGroup(group.key, group.start)), group)
        else:
            self.index.add(image, caption, field)

    def _note(self, group: MemberGroup) -> None:
        for part in group.parts:
            if len(self.suffixes) < MOST_PARTS:
                self.suffixes[part.suffix] = None

    def _merge(self, group: MemberGroup, later: MemberGroup) -> None:
        for part in later.parts:
            if problem := group.add(part):
                self._reject(part.name, problem)

    def _filled(self, group: MemberGroup, file: BinaryIO) -> MemberGroup:
        """A group that waited, with the bytes of its captions again. The walk finds its own place in the file by itself."""
        for place, part in enumerate(group.parts):
            if self.keys.may_be_caption(part.suffix) and part.size <= LARGEST_TEXT:
                file.seek(part.offset)
                group.parts[place] = part._replace(data=file.read(part.size))
        return group

    def _together(self, groups: list[MemberGroup]) -> Iterator[MemberGroup]:
        """Incomplete samples with those that have the same key up to the first dot, and divided again if they are several."""
        by_key: dict[str, MemberGroup] = {}
        for group in groups:
            key, _ = split_name(group.parts[0].name) or (group.key, "")
            first = by_key.setdefault(key, MemberGroup(key, group.start))
            if len(first.parts) + len(group.parts) > MOST_PARTS:
                yield from divided(first, self.keys)
                first = by_key[key] = MemberGroup(key, group.start)
            self._merge(first, group)
        for group in by_key.values():
            yield from divided(group, self.keys, loosely=True)

    def _settle(self, group: MemberGroup) -> None:
        """Decide on a sample that stayed incomplete until the shard's end."""
        name = group.parts[0].name
        try:
            image = self.keys.image(group.parts)
            name = image.name
            caption, field = self._caption(group, image)
        except ValueError as error:
            self._reject(name, str(error))
        else:
            self.index.add(image, caption, field)

    def _caption(self, group: MemberGroup, image: SampleMember) -> tuple[SampleMember | None, int]:
        """The caption's member and rule; none if none is needed. Raises `ValueError` with the reason if one is missing."""
        try:
            return self.keys.caption(group.parts, image, loosely=True)[:2]
        except ValueError:
            if self.captioned:
                raise
            return None, NO_CAPTION

    def _reject(self, name: str, reason: str) -> None:
        reject(self.rejects, self.index.shards[-1], name, reason)


def _by_split(index: TarIndex, rejects: Rejects) -> dict[str, Sequence[Sample]]:
    """Samples by split, each id once, in the order of shards and of images in them."""
    places = np.array(index.places)
    order = np.lexsort((np.array(index.images), places))
    keys = np.array(index.keys)[order]
    first = np.zeros(len(keys), dtype=bool)
    first[np.unique(keys, return_index=True)[1]] = True
    for number in order[~first]:
        shard, name = index.shards[index.places[number]], index.names[number]
        reject(rejects, shard, name, "has the name of an earlier sample of its shard")
    named = [shard.split for shard in index.shards]
    splits = np.array([name or "all" if all(named) else "all" for name in named])
    chosen = order[first]
    found = dict.fromkeys(str(name) for name in splits)
    return {
        name: TarSamples(index, numbers) for name in found if len(numbers := chosen[splits[places[chosen]] == name])
    }


def _nothing_left(source: str, shards: list[TarShard], indexer: _Indexer, rejects: Rejects) -> str:
    suffixes = list(indexer.suffixes)
    members = f"members {', '.join(suffixes[:8])}" if suffixes else "no samples"
    wanted = [*indexer.keys.images, *(where.suffix for where in indexer.keys.captions)]
    hint = next((hint for word in wanted if word not in suffixes and (hint := nearest(word, suffixes))), "")
    found = f"; {rejects.summary()}" if rejects else ""
    what = shards[0].label if len(shards) == 1 else f"{shards[0].label} and {len(shards) - 1} more"
    captions = " or ".join(str(where) for where in indexer.keys.captions) if indexer.captioned else ""
    image = " or ".join(indexer.keys.images) or "jpg, png or webp"
    beside = [name for name in _names(source, deeper=False) if os.path.splitext(name)[1].lower() in TABLES]
    if beside and indexer.captioned:
        table = os.path.join(source, beside[0])
        found += f"; {beside[0]} is beside them: if it is a table of these pictures, give its path, {table}"
    return (
        f"{what}: {members}, nothing to use{found}; expected an image ({image})"
        + (f" and a caption ({captions})" if captions else "")
        + f" in each sample.{hint}"
    )

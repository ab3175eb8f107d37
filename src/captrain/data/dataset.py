"""From a path to samples, split for training, chosen for evaluation, or listed for captioning."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from captrain.data.read_options import BY_LOOKING, ReadOptions
from captrain.data.readers import READERS, recognises
from captrain.data.readers.detection import detect, read_and_note
from captrain.data.safe_paths import IMAGE_SUFFIXES, as_spelled
from captrain.data.samples import ChosenSamples, JoinedSamples, PrefixedSamples, keys_of, question_of
from captrain.data.splits import SPLIT_NAMES, USUAL, SplitNames, listed_splits, own_name, own_names, roles_of
from captrain.data.text_encoding import decode_text
from captrain.disk.reading import read_file
from captrain.errors import DataError
from captrain.records import Rejects, Sample

LIST_SUFFIXES = frozenset({".txt", ".lst"})


@dataclass
class Splits:
    """A data set for training. `validation` and `test` may be empty.

    `labels` holds for each training sample the number of its data set, if several were joined. `question` is
    what all captions that are trained on answer, if the data says so, as conversations do. `uncaptioned` counts the pictures
    that have no caption, where they were told from those that can't be used.
    """

    train: Sequence[Sample]
    validation: Sequence[Sample]
    test: Sequence[Sample]
    rejects: Rejects
    labels: np.ndarray | None = None
    question: str = ""
    uncaptioned: int = 0

    def sources(self) -> np.ndarray:
        """The data set of each training sample, by number (samples,)."""
        return np.zeros(len(self.train), dtype=np.int64) if self.labels is None else self.labels


def load_splits(
    path: str,
    *,
    validation_share: float = 0.1,
    seed: int = 0,
    format: str | None = None,
    options: ReadOptions = BY_LOOKING,
    names: SplitNames = USUAL,
) -> Splits:
    """The splits a data set names; where it names no validation, a share of its training images, drawn by `seed`.

    Raises `DataError` if nothing is there, nothing can be used, there is nothing to train on, or `names` has a split that the
    data does not have, or one to train on and to measure on.
    """
    rejects = Rejects()
    named = read_splits(path, rejects, format, options)
    roles = roles_of(path, named, names)
    if not roles.train and names.train is None:
        raise DataError(
            f"{path}: nothing to train on, it has only {listed_splits(named)}; "
            "expected a split 'train', or name one: --train-split"
        )
    if both := [name for name in roles.train if name in {*roles.validation, *roles.test}]:
        raise DataError(
            f"{path}: split '{both[0]}' is asked for both to train on and to measure on; expected different ones"
        )
    train, validation, test = (join_named(named, some) for some in (roles.train, roles.validation, roles.test))
    if roles.draws:
        train, validation = hold_out(train, validation_share, seed)
    return Splits(train, validation, test, rejects, question=question_of(named[name] for name in roles.train))


def load_part(
    path: str,
    part: str,
    rejects: Rejects,
    names: Sequence[str] | None = None,
    format: str | None = None,
    options: ReadOptions = BY_LOOKING,
) -> Sequence[Sample]:
    """What a data set has for one part of a training ("test"): the named splits, else that of the part, else its only one.

    Raises `DataError` if it is not clear which that is.
    """
    named = read_splits(path, rejects, format, options)
    usual = [part] if part in named else list(named)
    if names is None and len(usual) > 1:
        raise DataError(f"{path}: no split '{part}', it has {listed_splits(named)}; say which: --{part}-split NAME")
    return join_named(named, own_names(path, named, names, usual))


def join_named(named: Mapping[str, Sequence[Sample]], names: Sequence[str]) -> Sequence[Sample]:
    """The samples of some of the splits, one after another."""
    parts = [named[name] for name in names]
    return parts[0] if len(parts) == 1 else JoinedSamples(parts)


def join_splits(parts: Mapping[str, Splits]) -> Splits:
    """Several data sets as one: ids begin with the data set's name.

    >>> dogs, cats = (Splits([Sample("1.jpg", b"")], (), (), Rejects()) for _ in range(2))
    >>> [sample.id for sample in join_splits({"dogs": dogs, "cats": cats}).train]
    ['dogs/1.jpg', 'cats/1.jpg']
    """
    rejects = Rejects(
        [line for part in parts.values() for line in part.rejects.lines],
        [line for part in parts.values() for line in part.rejects.remarks],
    )
    train, validation, test = (
        JoinedSamples([PrefixedSamples(f"{name}/", getattr(part, split)) for name, part in parts.items()])
        for split in ("train", "validation", "test")
    )
    labels = np.repeat(np.arange(len(parts)), [len(part.train) for part in parts.values()])
    questions = {part.question for part in parts.values()}
    return Splits(train, validation, test, rejects, labels, questions.pop() if len(questions) == 1 else "")


def unique_names(paths: Sequence[str]) -> list[str]:
    """A short name for each of several data sets: the last part of its path, with a number where that is taken.

    >>> unique_names(["a/photos", "b/photos", "coco"])
    ['photos', 'photos-2', 'coco']
    >>> unique_names(["photos-2", "a/photos", "b/photos"])
    ['photos-2', 'photos-3', 'photos-4']
    """
    names: list[str] = []
    for path in paths:
        name = path.rstrip("/").rsplit("/", 1)[-1]
        number = 1 + sum(other == name or other.startswith(f"{name}-") for other in names)
        wanted = name if number == 1 else f"{name}-{number}"
        while wanted in names:
            number += 1
            wanted = f"{name}-{number}"
        names.append(wanted)
    return names


def read_splits(
    source: str,
    rejects: Rejects,
    format: str | None = None,
    options: ReadOptions = BY_LOOKING,
    *,
    captioned: bool = True,
) -> dict[str, Sequence[Sample]]:
    """What the format's reader, or those of several tables, find at `source`, by the splits that it names ("all" if none).

    Remarks, for example on pictures that no table lists, are logged.
    """
    return read_and_note(source, format or detect(source, options), rejects, options, captioned, format is None)


def load_split(
    path: str,
    split: str | None = None,
    *,
    validation_share: float = 0.1,
    seed: int = 0,
    format: str | None = None,
    options: ReadOptions = BY_LOOKING,
    names: SplitNames = USUAL,
) -> tuple[Sequence[Sample], Rejects]:
    """One split for evaluation: the named one, or what `names` is for testing, else for validation, else all of one source.

    "train", "validation" and "test" are what `load_splits` takes for each of them with the same arguments: the splits of
    `names`, or what is drawn. Any other name, and one that nothing is for, is the data's own.
    """
    rejects = Rejects()
    named = read_splits(path, rejects, format, options)
    return pick_split(path, named, split, validation_share=validation_share, seed=seed, names=names), rejects


def pick_split(
    path: str,
    named: Mapping[str, Sequence[Sample]],
    split: str | None = None,
    *,
    validation_share: float = 0.1,
    seed: int = 0,
    names: SplitNames = USUAL,
) -> Sequence[Sample]:
    """Like `load_split`, for a data set that is already read: `named` are its splits."""
    roles = roles_of(path, named, names)
    if split is None:
        chosen = roles.test or roles.validation or [name for name in named if name == "all"]
        if not chosen:
            raise DataError(
                f"{path}: no split to evaluate on, it has only {listed_splits(named)}; name it: --split train"
            )
        return join_named(named, chosen)
    wanted = SPLIT_NAMES.get(split.lower(), split)
    if wanted in ("train", "validation") and roles.draws and roles.train:
        train, validation = hold_out(join_named(named, roles.train), validation_share, seed)
        return train if wanted == "train" else validation
    return join_named(named, roles.of(wanted) or [own_name(path, named, split)])


def list_images(
    paths: Sequence[str],
    rejects: Rejects | None = None,
    *,
    format: str | None = None,
    options: ReadOptions = BY_LOOKING,
) -> Sequence[Sample]:
    """Pictures to caption: each path a picture, a folder (all below it), a .txt or .lst list of paths, or a data set.

    Captions that are there come along as references. With one path, ids are relative to it; with several, they begin
    with the path. Paths in a list are relative to the list, else to the working folder. What can't be used goes to
    `rejects`; without it, the first such thing is a `DataError`.
    """
    found = Rejects()
    parts = [_list(path, len(paths) > 1, found, format, options) for path in paths]
    if rejects is None and found:
        raise DataError(found.summary())
    if rejects is not None:
        rejects.lines.extend(found.lines)
        rejects.remarks.extend(found.remarks)
    return _without_repeats(parts)


def hold_out(samples: Sequence[Sample], share: float, seed: int) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """Split off `share` of the images for validation: at least one where there are two, none if `share` is 0.

    Each id gets a number from the seed and the id alone; the lowest are held out. So if captions are added or changed
    the split stays, and if images are added most stay where they were. Both halves keep the order of `samples`.
    """
    if share <= 0 or len(samples) < 2:
        return samples, ()
    count = min(len(samples) - 1, max(1, round(share * len(samples))))
    held = np.zeros(len(samples), dtype=bool)
    held[np.argsort(_shuffle(keys_of(samples), seed), kind="stable")[:count]] = True
    return ChosenSamples(samples, np.flatnonzero(~held)), ChosenSamples(samples, np.flatnonzero(held))


def _shuffle(keys: np.ndarray, seed: int) -> np.ndarray:
    """Mix a seed into 64-bit keys by the finisher of splitmix64 (Steele, Lea, Flood 2014): alike on all platforms."""
    start = int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=8).digest(), "big")
    mixed = keys ^ np.uint64(start)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def _list(given: str, prefixed: bool, rejects: Rejects, format: str | None, options: ReadOptions) -> Sequence[Sample]:
    path = Path(given)
    suffix = path.suffix.lower()
    if path.is_file() and suffix in IMAGE_SUFFIXES:
        return [Sample(Path(given).as_posix() if prefixed else path.name, path, (), given)]
    if path.is_file() and suffix in LIST_SUFFIXES and not _names_captions(given, options):
        return list(_listed(path, rejects, options.encoding))
    samples = JoinedSamples(list(read_splits(given, rejects, format, options, captioned=False).values()))
    if not prefixed:
        return samples
    return PrefixedSamples(f"{Path(given).as_posix()}/", samples)


def _names_captions(given: str, options: ReadOptions) -> bool:
    """Whether a .txt file is a data set with captions (Flickr8k's captions.txt), not a list of pictures."""
    return any(recognises(name, given, options) for name in READERS)


def _listed(path: Path, rejects: Rejects, encoding: str) -> Iterator[Sample]:
    """The pictures that a list names, one path per line; lines that begin with # are remarks."""
    try:
        lines = decode_text(read_file(path), encoding).content.splitlines()
    except ValueError as error:
        raise DataError(f"{path}: {error}; save the list as UTF-8") from None
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        image = as_spelled(path.parent / name) or as_spelled(Path(name))
        if image is None:
            rejects.add(name, f"{path}:{number}", "names an image that is not there")
        else:
            yield Sample(Path(name).as_posix(), image, (), f"{path.name}:{number}")


def _without_repeats(parts: Sequence[Sequence[Sample]]) -> Sequence[Sample]:
    """The samples of all parts, each id once."""
    samples = parts[0] if len(parts) == 1 else JoinedSamples(parts)
    keys = keys_of(samples)
    _, first = np.unique(keys, return_index=True)
    return samples if len(first) == len(keys) else ChosenSamples(samples, np.sort(first))

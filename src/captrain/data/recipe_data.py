"""From the data section of a recipe to splits: one data set or several, by names, and others to measure on.

Two things are reported: pictures that are in two splits, since a captioner is then measured on what it was trained on; and
pictures without a caption, from which a training has nothing to learn.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from captrain.data.check.problems import kind_of_reject
from captrain.data.dataset import (
    Splits,
    join_named,
    join_splits,
    load_part,
    load_splits,
    read_splits,
    unique_names,
)
from captrain.data.machine_captions import MACHINE
from captrain.data.picture_files import MOST, content_key, size_of
from captrain.data.read_options import ReadOptions
from captrain.data.samples import JoinedSamples, PrefixedSamples, keys_of
from captrain.data.splits import SplitNames, roles_of
from captrain.errors import DataError, SettingsError
from captrain.records import Rejects, Sample
from captrain.settings.schema import DataSettings, Settings, Source
from captrain.settings.schema.conflicts import needing_validation

logger = logging.getLogger(__name__)


def load_training_splits(settings: Settings, path: str | None) -> Splits:
    """The splits of the data set at `path`, or if it is None of the settings' sources. Counts pictures without a caption.

    Raises `SettingsError` if a setting needs validation pictures and there are none.
    """
    splits = load_recipe_data(settings.data, settings.training.seed, path)
    splits.uncaptioned = take_uncaptioned(splits.rejects)
    if not len(splits.validation) and (names := needing_validation(settings)):
        raise SettingsError(
            f"{', '.join(names)}: there is nothing to validate on, the data names no validation split and "
            f"validation_share is {settings.data.validation_share:g}; leave out what needs it, or give --validation-split"
        )
    warn_of_leaks(splits, settings.data)
    tell_machine_captions(splits, settings.data)
    return splits


def load_recipe_data(data: DataSettings, seed: int, path: str | None = None) -> Splits:
    """The splits of the data set at `path`, or without it those of the recipe's sources, joined.

    Raises `SettingsError` where neither is given, and `DataError` as `load_splits` and `load_part` do.
    """
    if path is None and not data.sources:
        raise SettingsError(
            "found no data to train on; give DATA before OUT, or a recipe whose data section names sources"
        )
    sources = data.sources if path is None else (Source(path=path),)
    parts = [_load(source, data, seed) for source in sources]
    names = unique_names([source.path for source in sources])
    splits = parts[0] if path is not None else join_splits(dict(zip(names, parts, strict=True)))
    if not len(splits.train):
        raise DataError(
            f"{', '.join(source.path for source in sources)}: nothing to train on, no source has a train_split"
        )
    return _with_others(splits, data)


def warn_of_leaks(splits: Splits, data: DataSettings) -> None:
    """Say how many pictures are trained on and measured on, or chosen by and tested on."""
    one_source = data.validation_data is None and data.test_data is None
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    for (one, other), count in shared_pictures(parts, one_source).items():
        logger.warning(
            "%d of %d %s pictures are %s pictures too: scores on them say little about new pictures",
            count, len(parts[other]), other, "training" if one == "train" else one,
        )  # fmt: skip


def tell_machine_captions(splits: Splits, data: DataSettings) -> None:
    """Log for how many pictures captrain wrote captions, and whether these are learned."""
    if count := splits.rejects.remarked(MACHINE):
        rule = (
            "learned, too, and references where they are held out (for captions of people there: --validation-data)"
            if data.learn_from_machine_captions
            else "left out; --learn-from-machine-captions learns them"
        )
        logger.warning("captions that captrain wrote, of %d pictures, are %s", count, rule)


def read_pool(
    data: DataSettings, role: str, rejects: Rejects, path: str | None = None, only: str | None = None
) -> Sequence[Sample]:
    """All pictures of the data set at `path`, or without it of the recipe's sources, with the ids that a training gives them.

    First come those that are for `role` ("train", "validation" or "test") by split name, or from which it is drawn.

    Args:
        only: one of the sources, by its path; the others are left out.
    """
    sources = data.sources if path is None else (Source(path=path),)
    parts: list[Sequence[Sample]] = []
    for source, name in zip(sources, unique_names([source.path for source in sources]), strict=True):
        if only is None or same_place(source.path, only):
            named = read_splits(source.path, rejects, source.format or data.format, ReadOptions.of(data))
            roles = roles_of(source.path, named, _names_of(source, data))
            first = roles.of(role) or roles.train
            samples = join_named(named, [*first, *(split for split in named if split not in first)])
            parts.append(samples if path is not None else PrefixedSamples(f"{name}/", samples))
    return parts[0] if len(parts) == 1 else JoinedSamples(parts)


def same_place(one: str, other: str) -> bool:
    """Whether two paths lead to the same data set."""
    return Path(one).resolve() == Path(other).resolve()


def _load(source: Source, data: DataSettings, seed: int) -> Splits:
    """One data set's splits."""
    return load_splits(
        source.path, validation_share=data.validation_share, seed=seed, format=source.format or data.format,
        options=ReadOptions.of(data), names=_names_of(source, data),
    )  # fmt: skip


def _names_of(source: Source, data: DataSettings) -> SplitNames:
    """The purpose of each split of a source. Its own names take precedence over those of the recipe."""
    elsewhere = SplitNames(
        validation=() if data.validation_data is not None else data.validation_split,
        test=() if data.test_data is not None else data.test_split,
    )
    return SplitNames(
        data.train_split if source.train_split is None else source.train_split,
        elsewhere.validation if source.validation_split is None else source.validation_split,
        elsewhere.test if source.test_split is None else source.test_split,
    )


def _with_others(splits: Splits, data: DataSettings) -> Splits:
    """The splits with what other data sets give to measure on. Their forms are found by looking."""
    options = ReadOptions.of(data)
    if data.validation_data is not None:
        splits.validation = load_part(
            data.validation_data, "validation", splits.rejects, data.validation_split, options=options
        )
    if data.test_data is not None:
        splits.test = load_part(data.test_data, "test", splits.rejects, data.test_split, options=options)
    return splits


def shared_pictures(splits: Mapping[str, Sequence[Sample]], one_source: bool = True) -> dict[tuple[str, str], int]:
    """How many pictures of each later split are in an earlier one too, where there are any.

    Pictures are compared by content: only those are read whose size occurs in both splits. What is too much for that, or has
    no picture (features), is compared by ids, which says something within `one_source` alone.

    >>> splits = {"train": [Sample("a", b"1"), Sample("b", b"22")], "test": [Sample("c", b"1"), Sample("d", b"33")]}
    >>> shared_pictures(splits)
    {('train', 'test'): 1}
    """
    sizes = {name: _sizes(samples) for name, samples in splits.items()}
    found = {}
    for one, other in combinations(splits, 2):
        mine, theirs = sizes[one], sizes[other]
        if mine is not None and theirs is not None:
            keys = set(_contents(splits[one], np.isin(mine, theirs)))
            count = sum(key in keys for key in _contents(splits[other], np.isin(theirs, mine)))
        else:
            both = np.intersect1d(keys_of(splits[one]), keys_of(splits[other])) if one_source else ()
            count = len(both)
        if count:
            found[one, other] = count
    return found


def _sizes(samples: Sequence[Sample]) -> np.ndarray | None:
    """Bytes of each picture; -1 where the picture can't be found. None where there are too many, or some have no size."""
    if len(samples) > MOST:
        return None
    sizes = np.empty(len(samples), dtype=np.int64)
    for index, sample in enumerate(samples):
        size = size_of(sample)
        if size is None:
            return None
        sizes[index] = size
    return sizes


def _contents(samples: Sequence[Sample], wanted: np.ndarray) -> Iterator[str]:
    """Digests of the wanted pictures; what can't be read has none."""
    for index in np.flatnonzero(wanted):
        try:
            yield content_key(samples[int(index)].read())
        except (OSError, ValueError):
            continue


def take_uncaptioned(rejects: Rejects) -> int:
    """Take out of what a reader rejected the pictures that only lack a caption; returns how many these were.

    >>> rejects = Rejects()
    >>> rejects.add("a.jpg", "a.jpg", "has no caption beside it")
    >>> rejects.add("b.txt", "b.txt", "is not UTF-8 (byte 3)")
    >>> take_uncaptioned(rejects), len(rejects)
    (1, 1)
    """
    faults = [line for line in rejects.lines if not _only_lacks_caption(line["reason"])]
    found = len(rejects.lines) - len(faults)
    rejects.lines[:] = faults
    return found


def _only_lacks_caption(reason: str) -> bool:
    """Whether a reader's reason says that there is no caption, and not what is wrong with one.

    >>> _only_lacks_caption("has no caption"), _only_lacks_caption("has no caption: its .txt is empty")
    (True, False)
    """
    return ":" not in reason and kind_of_reject(reason) in ("no-caption", "empty-caption")

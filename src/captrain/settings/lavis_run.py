"""What LAVIS's `run` section says of splits and of writing, in captrain's words."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from typing import Any

from captrain.errors import SettingsError
from captrain.settings.lavis_section import Section

SPLITS = {
    "train_splits": ("train_split", ["train"]),
    "valid_splits": ("validation_split", ["val"]),
    "test_splits": ("test_split", ["test"]),
}
"""For each key the setting, and the value that does what captrain does anyway."""

MOST_SPLITS = 100


def splits_of(run: Section) -> Iterator[tuple[str, list[str]]]:
    """The settings of splits that differ from what is done anyway. Raises `SettingsError` for what is no list of names.

    >>> list(splits_of(Section("run", {"train_splits": ["train"], "test_splits": ["val", "test"]}, "f")))
    [('test_split', ['val', 'test'])]
    """
    for key, (leaf, usual) in SPLITS.items():
        names = run.values.get(key)
        if names is None or names == usual:
            continue
        if not isinstance(names, list) or len(names) > MOST_SPLITS or not all(isinstance(name, str) for name in names):
            raise SettingsError(
                f"{run.where}: run.{key}: found {reprlib.repr(names)}, expected a list of names of splits"
            )
        yield leaf, names


def drop_unused(generation: dict[str, Any]) -> None:
    """Take out what the way of writing has no use for: LAVIS's files name beams and `top_p`, whichever is used.

    >>> generation = {"sample": False, "top_p": 0.5, "beams": 5}
    >>> drop_unused(generation)
    >>> generation
    {'sample': False, 'beams': 5}
    """
    for name in ("beams",) if generation.get("sample") else ("top_p", "temperature"):
        generation.pop(name, None)

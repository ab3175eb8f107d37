"""Which of a data set's splits are trained on, chosen by and tested on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from captrain.data.readers import SPLIT_NAMES
from captrain.errors import DataError, nearest
from captrain.records import Sample


@dataclass(frozen=True, slots=True)
class SplitNames:
    """Which of a data set's splits are for what. None: by their usual names; (): nothing is."""

    train: Sequence[str] | None = None
    validation: Sequence[str] | None = None
    test: Sequence[str] | None = None


USUAL = SplitNames()


@dataclass(frozen=True, slots=True)
class Roles:
    """The data's own names of the splits for each purpose. With `draws`, validation pictures are drawn from those to train on."""

    train: list[str]
    validation: list[str]
    test: list[str]
    draws: bool

    def of(self, role: str) -> list[str]:
        """The splits for a purpose; none for a word that is no purpose."""
        return {"train": self.train, "validation": self.validation, "test": self.test}.get(role, [])


def roles_of(path: str, named: Mapping[str, Sequence[Sample]], names: SplitNames = USUAL) -> Roles:
    """What each of the splits `named` is for: as `names` says, else by their usual names; what is trained on is for nothing else.

    Raises `DataError` where `names` has a split that the data has not.
    """
    train = own_names(path, named, names.train, [name for name in ("train", "all") if name in named][:1])
    free = [name for name in named if name not in train]
    validation = own_names(path, named, names.validation, [name for name in free if name == "validation"])
    test = own_names(path, named, names.test, [name for name in free if name == "test"])
    return Roles(train, validation, test, draws=not validation and names.validation is None)


def own_names(
    path: str, named: Mapping[str, Sequence[Sample]], wanted: Sequence[str] | None, usual: Sequence[str]
) -> list[str]:
    """The data's own names of the wanted splits, each once; without any wanted, the usual ones.

    Raises `DataError` as `own_name` does.
    """
    if wanted is None:
        return list(usual)
    return list(dict.fromkeys(own_name(path, named, name) for name in wanted))


def own_name(path: str, named: Mapping[str, Sequence[Sample]], name: str) -> str:
    """What the data calls a split: as it was asked for, or by its usual name. Raises `DataError` if there is none."""
    own = name if name in named else SPLIT_NAMES.get(name.lower(), name)
    if own not in named:
        raise DataError(f"{path}: no split '{name}'; it has {listed(named)}.{nearest(name, named)}")
    return own


def listed(named: Mapping[str, Sequence[Sample]]) -> str:
    """Names of splits, for people."""
    return ", ".join(f"'{name}'" for name in named)
